"""Pictures: matplotlib's figures, as soon as matplotlib is loaded and no sooner, and PIL's images."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

_BACKEND: Final = "module://runvisor.actors.python.backend"


def choose_backend() -> None:
    """Let matplotlib, whenever it is imported, draw to memory and hand its figures to the screen."""
    os.environ["MPLBACKEND"] = _BACKEND


def take_open() -> Iterator[bytes | str]:
    """Draw each open figure of pyplot as PNG, or say why it cannot be drawn; all are closed after."""
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    if helpers is None or not helpers.Gcf.figs:
        return
    pyplot = sys.modules["matplotlib.pyplot"]
    try:
        for number in pyplot.get_fignums():
            try:
                yield _png(pyplot.figure(number))
            except Exception as error:
                yield type(error).__name__
    finally:
        with contextlib.suppress(Exception):
            pyplot.close("all")


def picture_of(thing: Any) -> bytes | None:
    """Return a matplotlib figure or a PIL image as PNG; None for anything else.

    A figure of pyplot's is closed, so that it is not shown a second time.
    """
    module = sys.modules.get("matplotlib.figure")
    if module is not None and isinstance(thing, module.Figure):
        with contextlib.suppress(Exception):
            data = _png(thing)
            if "matplotlib.pyplot" in sys.modules:
                sys.modules["matplotlib.pyplot"].close(thing)
            return data
        return None
    module = sys.modules.get("PIL.Image")
    if module is not None and isinstance(thing, module.Image):
        with contextlib.suppress(Exception):
            buffer = io.BytesIO()
            (thing if thing.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I") else thing.convert("RGB")).save(
                buffer, "PNG"
            )
            return buffer.getvalue()
    return None


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def warm() -> None:
    """Find the fonts and walk the drawing path once; a child would pay 0.5 s for it."""
    pyplot = sys.modules["matplotlib.pyplot"]
    figure = pyplot.figure(figsize=(1, 1))
    axes = figure.add_subplot()
    axes.plot([1, 2])
    axes.set_title("warm")
    _png(figure)
    pyplot.close("all")
    # matplotlib empties this cache in each child; empty already, that touches nothing.
    with contextlib.suppress(AttributeError):
        sys.modules["matplotlib.font_manager"]._get_font.cache_clear()
