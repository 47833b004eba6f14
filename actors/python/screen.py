"""What a task or a cell shows beside its value: rich forms of objects, as in a notebook.

The protocol is IPython's: ``_repr_mimebundle_`` and the ``_repr_*_`` methods
(https://ipython.readthedocs.io/en/stable/config/integrating.html). They are
the guest's code: whatever one of them does costs only what it would have shown.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

from runvisor.actors.python import figures, tables

MAX_ARTIFACTS: Final = 32
MAX_BYTES: Final = 16 << 20
_MAX_TEXT: Final = 10_000
_MIME: Final = re.compile(r"[a-zA-Z0-9.+-]{1,40}/[a-zA-Z0-9.+-]{1,60}")
_METHODS: Final = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
}
_SUFFIXES: Final = {
    "text/plain": "txt",
    "text/html": "html",
    "text/markdown": "md",
    "text/latex": "tex",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpg",
    "application/pdf": "pdf",
    "application/json": "json",
    "application/vnd.plotly.v1+json": "plotly.json",
}
_BINARY: Final = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")
_NOTHING_RICH: Final = frozenset((bool, int, float, complex, str, bytes, list, tuple, dict, set, type(None)))


class Screen:
    """Gathers artifacts, up to `MAX_ARTIFACTS` of them and `MAX_BYTES` together.

    Example:
        >>> screen = Screen()
        >>> screen.show("hello", "display")
        >>> screen.take()
        [['display-1.txt', 'text/plain', b'hello']]
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._artifacts: list[list[Any]] = []
        self._bytes = 0
        self._counts: dict[str, int] = {}
        self._full = False

    def __bool__(self) -> bool:
        return bool(self._artifacts)

    def take(self) -> list[list[Any]]:
        """Return the artifacts, each a name, a type and bytes, and begin anew."""
        taken = self._artifacts
        self._clear()
        return taken

    def show(self, thing: Any, kind: str) -> None:
        """Add every form that an object has; its text if it has no other.

        Args:
            thing: Any object of the guest's.
            kind: First part of the artifacts' names.
        """
        if not self.show_rich(thing, kind):
            self.add_text(thing, kind)

    def show_rich(self, thing: Any, kind: str) -> bool:
        """Add the rich forms of an object, and say whether it has any."""
        if type(thing) in _NOTHING_RICH or self._full:
            return False
        before = len(self._artifacts)
        name = self._name(kind)
        for mime, data in _forms(thing):
            self._add(name, mime, data)
        if len(self._artifacts) == before:
            self._counts[kind] -= 1
        return len(self._artifacts) > before

    def add_text(self, thing: Any, kind: str) -> None:
        """Add the text of an object: itself if it is text, else its ``repr``."""
        try:
            text = thing if isinstance(thing, str) else repr(thing)
            if len(text) > _MAX_TEXT:
                text = f"{text[:_MAX_TEXT]}\n... {len(text) - _MAX_TEXT} more characters"
            data = text.encode(errors="replace")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            data = f"<{type(thing).__name__}: its repr raised {type(error).__name__}>".encode(errors="replace")
        self._add(self._name(kind), "text/plain", data)

    def show_figures(self) -> None:
        """Add a picture of each figure that is still open in pyplot, and close it."""
        for data in figures.take_open():
            if isinstance(data, bytes):
                self._add(self._name("figure"), "image/png", data)
            else:
                _note(f"a figure could not be drawn: {data}")

    def _name(self, kind: str) -> str:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return kind if kind == "result" else f"{kind}-{self._counts[kind]}"

    def _add(self, name: str, mime: str, data: bytes) -> None:
        if self._full:
            return
        if len(self._artifacts) == MAX_ARTIFACTS:
            self._full = True
            _note(f"more than {MAX_ARTIFACTS} artifacts; the rest is not kept")
            return
        name = f"{name}.{_SUFFIXES.get(mime, 'bin')}"
        size = len(name) + len(mime) + len(data)
        if self._bytes + size > MAX_BYTES:
            _note(f"{name} ({mime}) is not kept: artifacts may hold {MAX_BYTES >> 20} MiB together")
            return
        self._bytes += size
        self._artifacts.append([name, mime, data])


SCREEN: Final = Screen()
"""The one of this process: a process runs one thing at a time."""


def display(*things: Any) -> None:
    """Show objects as artifacts of the result, as in a notebook (a builtin inside the sandbox)."""
    for thing in things:
        SCREEN.show(thing, "display")


def _forms(thing: Any) -> Iterator[tuple[str, bytes]]:
    picture = figures.picture_of(thing)
    if picture is not None:
        yield "image/png", picture
        return
    if tables.is_table(thing):
        yield from _called(lambda: {"text/html": thing._repr_html_(), "application/json": tables.to_json(thing)})
        return
    kind = type(thing)
    if hasattr(kind, "to_plotly_json") and hasattr(kind, "to_json"):
        yield from _called(lambda: _plotly(thing))
        return
    seen: set[str] = {"text/plain"}
    if hasattr(kind, "_repr_mimebundle_"):
        for mime, data in _called(lambda: thing._repr_mimebundle_(include=None, exclude=None)):
            if mime not in seen:
                seen.add(mime)
                yield mime, data
    for method, mime in _METHODS.items():
        # Looked for in the type: an object that answers to every name would have them all.
        if mime not in seen and hasattr(kind, method):
            yield from _called(lambda method=method, mime=mime: {mime: getattr(thing, method)()})


def _plotly(figure: Any) -> dict[str, Any]:
    """Return a plotly figure as its own JSON and as a page that loads plotly.js from its CDN."""
    forms: dict[str, Any] = {"application/vnd.plotly.v1+json": figure.to_json()}
    if hasattr(type(figure), "to_html"):
        forms["text/html"] = figure.to_html(include_plotlyjs="cdn")
    return forms


def _called(make: Any) -> Iterator[tuple[str, bytes]]:
    """Take what one method of the guest's returns; what it must not return is noted and dropped."""
    try:
        bundle = make()
        if isinstance(bundle, tuple):  # the data, and metadata that nobody here reads
            bundle = bundle[0]
        forms = [
            (mime, _encoded(mime, data[0] if type(data) is tuple else data))
            for mime, data in (bundle or {}).items()
            if data is not None
        ]
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _note(f"a rich form is not shown: {type(error).__name__} was raised by its method")
        return
    yield from forms


def _encoded(mime: Any, data: Any) -> bytes:
    if not isinstance(mime, str) or not _MIME.fullmatch(mime):
        raise TypeError("not a media type")
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    if isinstance(data, str):
        return (
            base64.b64decode("".join(data.split()), validate=True) if mime in _BINARY else data.encode(errors="replace")
        )
    if isinstance(data, dict | list) and mime.endswith("json"):
        return json.dumps(data, default=str).encode()
    raise TypeError(f"{mime} as a {type(data).__name__}")


def _note(text: str) -> None:
    try:
        print(f"[not shown] {text}", file=sys.stderr)
    except Exception:
        return
