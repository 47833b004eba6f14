"""The figures as pictures; drawn with the Agg canvas and without pyplot, so that no display is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.scheduler.comparison import Comparison
from benchmarks.scheduler.verdicts import MOST_REGRET

_OURS: Final = "#c2452d"
_OTHERS: Final = "#3b6ea5"
_LEAST_SHOWN: Final = 0.01


def draw_regrets(comparison: Comparison, regimes: Sequence[str], ours: Sequence[str], path: Path) -> None:
    """Draw the relative regret of each contender in each regime, with its interval."""
    figure = Figure(figsize=(12, 7), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(2, (len(regimes) + 1) // 2)).ravel()
    for axes in panels[len(regimes) :]:
        axes.set_visible(False)
    for axes, regime in zip(panels, regimes, strict=False):
        names = [name for where, number, name in comparison.cells() if (where, number) == (regime, 1)]
        found = {name: comparison.interval((regime, 1, name), "relative_regret") for name in names if name != "oracle"}
        ordered = sorted(found, key=lambda name: found[name].mean)
        means = [max(_LEAST_SHOWN, found[name].mean) for name in ordered]
        halves = [min(found[name].half, mean * 0.99) for name, mean in zip(ordered, means, strict=True)]
        colours = [_OURS if name in ours else _OTHERS for name in ordered]
        axes.barh(range(len(ordered)), means, xerr=halves, color=colours, height=0.7, ecolor="#222222")
        axes.set_yticks(range(len(ordered)), ordered, fontsize=8)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.axvline(MOST_REGRET, color="#222222", linestyle=":", linewidth=1)
        axes.set_title(regime, fontsize=10)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("relative regret against the oracle, mean of seeds with 95% interval; dotted: the bar")
    figure.savefig(path, format="png")


def draw_herding(
    comparison: Comparison, regime: str, contenders: Sequence[str], handles: Sequence[int], path: Path
) -> None:
    """Draw total cost and p99 by number of handles."""
    figure = Figure(figsize=(9, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    titles = {"total_cost_ms": "total cost per request, ms", "p99_ms": "p99, ms"}
    panels = figure.subplots(1, len(titles))
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        for each in contenders:
            found = [comparison.interval((regime, number, each), name) for number in handles]
            means, halves = [value.mean for value in found], [value.half for value in found]
            axes.errorbar(range(len(handles)), means, yerr=halves, marker="o", capsize=3, label=each)
        axes.set_xticks(range(len(handles)), [str(number) for number in handles])
        axes.set_xlabel(f"handles, {regime}")
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].legend(fontsize=8, frameon=False)
    figure.savefig(path, format="png")
