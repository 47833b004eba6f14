"""``figure.show()`` of plotly, which would look for a browser, shows the figure as an artifact instead."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

from runvisor.actors.python.screen import SCREEN

_MODULE: Final = "plotly.io"


class _Finder:
    """Finds one module as Python would, and changes one function in it when it has been loaded."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        if name != _MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            module.show = _show  # type: ignore[attr-defined]

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


def show_as_artifacts() -> None:
    """Let plotly, whenever it is imported, show its figures so."""
    sys.meta_path.insert(0, _Finder)


def _show(figure: Any, *arguments: Any, **options: Any) -> None:
    del arguments, options  # renderers, sizes: for windows that are not there
    SCREEN.show(figure, "figure")
