"""Choices and beliefs over time, in a terminal and as a picture."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runvisor.policies.observations import short_time
from runvisor.supervisor.cli.output import visible
from runvisor.supervisor.cli.policy_table import spark
from runvisor.supervisor.policy_history import ArmHistory, History

_BESIDE: Final = 58
"""Characters of a line of the table beside its marks."""
_LEAST_SLICES: Final = 10
_MOST_SLICES: Final = 60
_COLOURS: Final = (
    "#3b6ea5", "#d1742c", "#4f9153", "#b0413e", "#7d62a8", "#8a6d3b", "#c678a8", "#5f6b73", "#a8a032", "#2f9aa0",
)  # fmt: skip


def slices_that_fit(width: int) -> int:
    """Return how many marks each of the two lines of `history_table` may have in a terminal."""
    return min(_MOST_SLICES, max(_LEAST_SLICES, (width - _BESIDE) // 2))


def history_table(history: History) -> RenderableType:
    """Return a line for each arm: its share of the executions and what was believed of it, from left to right."""
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    table.add_column("runs", justify="right", no_wrap=True)
    table.add_column("executions", no_wrap=True)
    table.add_column("believed mean", no_wrap=True)
    for heading in ("at first", "now", "lost"):
        table.add_column(heading, justify="right", no_wrap=True)
    totals = [max(1, sum(column)) for column in zip(*(arm.choices for arm in history.arms), strict=True)]
    for arm in history.arms:
        logs = [None if each is None else math.log(each) for each in arm.believed_s]
        known = [each for each in logs if each is not None]
        beliefs = [each for each in arm.believed_s if each is not None]
        shares = [count / total if count else None for count, total in zip(arm.choices, totals, strict=True)]
        table.add_row(
            Text(visible(arm.arm)),
            f"{arm.runs:,}",
            Text(spark(shares, 1.0), "cyan"),
            Text(spark(logs, max(known, default=1.0), min(known, default=0.0)), "magenta"),
            short_time(beliefs[0]) if beliefs else "",
            short_time(beliefs[-1]) if beliefs else "",
            Text(f"{sum(arm.lost):,}", style="red" if any(arm.lost) else ""),
        )
    begin, end = history.ends[0] - history.slice_s, history.ends[-1]
    whose = f"family {visible(history.family)}" if history.family else "all families; beliefs are about new code"
    head = f"{_when(begin)} to {_when(end)}, {short_time(history.slice_s)} a mark; {whose}"
    return Group(Text(head, style="italic"), table)


def draw(history: History) -> bytes | None:
    """Return the same as a PNG; None where matplotlib is missing.

    Drawn with the Agg canvas and without pyplot, so that it needs no display
    and is safe in any thread.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(10, 7), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    choices, beliefs = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    begin = history.ends[0] - history.slice_s
    middles = [end - history.slice_s / 2 - begin for end in history.ends]
    base = [0.0] * len(middles)
    totals = [max(1, sum(column)) for column in zip(*(arm.choices for arm in history.arms), strict=True)]
    for index, arm in enumerate(history.arms):
        colour = _COLOURS[index % len(_COLOURS)]
        shares = [100.0 * count / total for count, total in zip(arm.choices, totals, strict=True)]
        choices.bar(
            middles, shares, history.slice_s, bottom=base, color=colour, label=f"{_plain(arm.arm)} ({arm.runs})"
        )
        base = [low + share for low, share in zip(base, shares, strict=True)]
        _draw_beliefs(beliefs, [end - begin for end in history.ends], middles, arm, colour)
    choices.set_ylabel("executions (%)")
    choices.set_ylim(0, 100)
    choices.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    beliefs.set_yscale("log")
    beliefs.set_ylabel("service time (ms)")
    beliefs.set_xlabel(f"seconds since {_when(begin)}")
    beliefs.plot([], [], color="gray", label="believed mean")
    beliefs.plot([], [], color="gray", linestyle=":", label="believed 95%")
    beliefs.plot([], [], color="gray", marker=".", linestyle="", label="median of what ran")
    beliefs.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    whose = f"family {_plain(history.family)}" if history.family else "all families; beliefs are about new code"
    figure.suptitle(f"Choices and beliefs: {whose}", fontsize=10)
    for axes in (choices, beliefs):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _draw_beliefs(axes: Any, ends: list[float], middles: list[float], arm: ArmHistory, colour: str) -> None:
    lines = ((ends, arm.believed_s, "-", ""), (ends, arm.believed_p95_s, ":", ""), (middles, arm.median_s, "", "."))
    for times, values, line, marker in lines:
        known = [(time, value * 1e3) for time, value in zip(times, values, strict=True) if value is not None]
        if known:
            axes.plot(*zip(*known, strict=True), color=colour, linestyle=line, marker=marker)


def _plain(text: str) -> str:
    """Return text without what would steer the drawing: "$" begins a formula there."""
    return ascii(text)[1:-1].replace("$", r"\$")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
