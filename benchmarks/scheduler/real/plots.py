"""Plots of comparisons and of live runs, as SVG without dates, so that equal results are equal files."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.scheduler.comparison import Interval
from benchmarks.scheduler.real.live import PHASES, LiveRun
from benchmarks.scheduler.real.policies import OURS

_SHOWN: Final = (
    ("relative_regret", "relative regret"),
    ("closed", "share of the gap to the oracle closed"),
    ("p99_ms", "p99, ms"),
    ("slo_missed", "share of SLOs missed"),
)
_COLOURS: Final = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1")


def plot_comparison(summaries: Mapping[str, Mapping[str, Mapping[str, Interval]]], path: Path) -> None:
    """Draw each setting's main figures of all policies, with intervals."""
    figure = Figure(figsize=(4.2 * len(_SHOWN), 2.6 * len(summaries) + 0.4), layout="constrained")
    grid: Any = figure.subplots(len(summaries), len(_SHOWN), squeeze=False)
    for row, (setting, policies) in zip(grid, summaries.items(), strict=True):
        for axes, (name, title) in zip(row, _SHOWN, strict=True):
            _bars(axes, {policy: figures[name] for policy, figures in policies.items()})
            axes.set_title(f"{setting}: {title}", fontsize=9)
            if axes is not row[0]:
                axes.set_yticklabels([])
    _save(figure, path)


def plot_live(runs: Sequence[LiveRun], path: Path) -> None:
    """Draw each run's arms and queues over time."""
    figure = Figure(figsize=(13, 2.9 * len(runs)), layout="constrained")
    grid: Any = figure.subplots(len(runs), 2, squeeze=False)
    arms = sorted({each.arm for run in runs for each in run.sent if "/" in each.arm})
    for (left, right), run in zip(grid, runs, strict=True):
        _mix(left, run, arms)
        left.set_title(f"{run.policy}, {run.handles} handles: requests a second, by arm", fontsize=9)
        for colour, runtime in zip(_COLOURS, sorted({row[1] for row in run.queues}), strict=False):
            rows = [row for row in run.queues if row[1] == runtime]
            right.step([row[0] for row in rows], [row[2] + row[3] for row in rows], color=colour, label=runtime, lw=0.8)
        right.set_title("busy and waiting, by pool", fontsize=9)
        for axes in (left, right):
            for number, phase in enumerate(PHASES):
                axes.axvline(number * run.phase_s, color="#888888", lw=0.6)
                axes.text(number * run.phase_s, axes.get_ylim()[1], f" {phase}", fontsize=6, va="top")
            axes.legend(fontsize=6, loc="center left")
    _save(figure, path)


def _bars(axes: Axes, values: Mapping[str, Interval]) -> None:
    names = list(values)
    means = [values[name].mean for name in names]
    axes.barh(
        names,
        means,
        xerr=[half if math.isfinite(half := values[name].half) else 0.0 for name in names],
        color=[_COLOURS[1] if name == OURS else _COLOURS[0] for name in names],
        error_kw={"lw": 0.8},
    )
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    there = sorted(mean for mean in means if not math.isnan(mean))
    if len(there) > 2 and there[-1] > 8 * abs(there[len(there) // 2]) > 0:
        axes.set_xscale("symlog", linthresh=max(abs(there[len(there) // 2]) / 4, 1e-6))


def _mix(axes: Axes, run: LiveRun, arms: Sequence[str]) -> None:
    counts = [Counter[str]() for _ in range(int(run.phase_s * len(PHASES)))]
    for each in run.sent:
        counts[min(int(each.due_s), len(counts) - 1)][each.arm] += 1
    axes.stackplot(
        range(len(counts)),
        [[count[arm] for count in counts] for arm in arms],
        labels=arms,
        colors=_COLOURS,
        step="post",
    )


def _save(figure: Figure, path: Path) -> None:
    with mpl.rc_context({"svg.hashsalt": "runvisor", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
