"""A matplotlib backend whose windows are artifacts.

Chosen by ``MPLBACKEND``, so that a task that imports matplotlib itself has it
too. See "Writing a backend" in matplotlib's documentation:
https://matplotlib.org/stable/users/explain/figure/writing_a_backend_pyplot_interface.html
"""

from __future__ import annotations

from typing import Any

from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from runvisor.actors.python.screen import SCREEN


class FigureManager(FigureManagerBase):
    """Shows figures by drawing them into the task's artifacts."""

    @classmethod
    def pyplot_show(cls, *, block: bool | None = None) -> None:
        """Show and close all open figures (``plt.show()``)."""
        del block
        SCREEN.show_figures()

    def show(self) -> None:
        """Show and close this figure (``figure.show()``)."""
        SCREEN.show(self.canvas.figure, "figure")


class FigureCanvas(FigureCanvasAgg):
    """Agg's canvas, under the manager above."""

    manager_class: Any = FigureManager
