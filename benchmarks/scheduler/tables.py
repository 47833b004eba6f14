"""The figures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table

from benchmarks.scheduler.comparison import Comparison, Interval
from benchmarks.scheduler.verdicts import Verdict

_COLUMNS: Final = (
    ("relative_regret", "relative regret", 1.0),
    ("right", "right %", 100.0),
    ("total_cost", "total cost over the oracle's, %", 100.0),
    ("p99_ms", "p99 ms", 1.0),
    ("slo_missed", "SLO missed %", 100.0),
    ("failed", "failed %", 100.0),
)
_BROKEN: Final = (("lost_to_broken", "lost to the broken arm", 1.0), ("returned", "back after healing %", 100.0))
_HERDING: Final = (
    ("relative_regret", "relative regret", 1.0),
    ("herded", "wrong for the queue alone %", 100.0),
    ("total_cost_ms", "total cost ms", 1.0),
    ("p99_ms", "p99 ms", 1.0),
)


def regime_table(comparison: Comparison, regime: str) -> Table:
    """Return the contenders of a regime, the least regret first."""
    cells = [cell for cell in comparison.cells() if cell[:2] == (regime, 1)]
    columns = _COLUMNS + (_BROKEN if "lost_to_broken" in comparison.figures(cells[0]) else ())
    table = Table("policy", *(title for _, title, _ in columns), title=regime)
    for cell in sorted(cells, key=lambda cell: comparison.interval(cell, "relative_regret").mean):
        table.add_row(cell[2], *(_shown(comparison.interval(cell, name), unit) for name, _, unit in columns))
    return table


def herding_table(comparison: Comparison, regime: str, contenders: Sequence[str], handles: Sequence[int]) -> Table:
    """Return the same contenders with few and many handles."""
    table = Table("policy", "handles", *(title for _, title, _ in _HERDING), title=f"many handles, {regime}")
    for name in contenders:
        for number in handles:
            figures = [
                _shown(comparison.interval((regime, number, name), figure), unit) for figure, _, unit in _HERDING
            ]
            table.add_row(
                name if number == handles[0] else "", str(number), *figures, end_section=number == handles[-1]
            )
    return table


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return the bars."""
    table = Table("bar", "met", "figure", title="bars")
    for each in verdicts:
        table.add_row(each.bar, "yes" if each.met else "MISSED", each.figure)
    return table


def _shown(value: Interval, unit: float) -> str:
    mean, half = value.mean * unit, value.half * unit
    digits = 3 if abs(mean) < 1 else 1
    return f"{mean:.{digits}f} ± {half:.{digits}f}"
