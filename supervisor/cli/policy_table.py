"""Tables of what the scheduler believes, and of one decision."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runvisor.policies.observations import short_time
from runvisor.policies.scheduling.decision import HEADINGS, Decision
from runvisor.supervisor.cli.output import visible
from runvisor.supervisor.policy_account import ArmAccount
from runvisor.supervisor.training import TRAINED, Training


def decision_table(decision: Decision) -> Table:
    """Return a line for each arm: the chosen one first, then by score, then those that were struck out."""
    table = Table(HEADINGS[0], box=None, pad_edge=False)
    for heading in HEADINGS[1:-1]:
        table.add_column(heading, justify="right")
    table.add_column(HEADINGS[-1])
    for row in decision.table():
        style = "bold green" if row.arm == decision.arm else "dim" if row.excluded_because else ""
        table.add_row(*(Text(visible(cell), style=style, overflow="fold") for cell in row))
    return table


def beliefs_table(account: Sequence[ArmAccount]) -> Table:
    """Return a line for each arm."""
    table = Table("arm", box=None, pad_edge=False)
    for heading in ("runs", "median", "p95", "doubt", "drift", "failures", "cold start"):
        table.add_column(heading, justify="right")
    table.add_column("breaker")
    for each in account:
        table.add_row(
            Text(visible(each.arm)),
            f"{each.runs:,}",
            short_time(each.median_s),
            short_time(each.p95_s),
            f"x{each.doubt:.2f}",
            f"x{each.drift:.2f}",
            _chance(each.failure_chance),
            f"+{short_time(each.cold_s)}" if each.cold_s else "",
            Text(each.breaker, style="" if each.breaker == "closed" else "bold red"),
        )
    return table


def explained(decision: Decision) -> RenderableType:
    """Return the sentence and the table of a decision."""
    return Group(Text(visible(decision.explain())), decision_table(decision))


def training_table(training: Training) -> Table:
    """Return the errors on executions that were held out, by who predicted."""
    table = Table("held out", "predicted by", box=None, pad_edge=False)
    for heading in ("runs", "RMSE of log time", "off by a factor of (median)"):
        table.add_column(heading, justify="right")
    for comparison in training.comparisons:
        for index, (who, error) in enumerate(comparison.errors.items()):
            table.add_row(
                "" if index else comparison.held_out,
                Text(who, style="bold" if who == TRAINED else ""),
                f"{error.runs:,}",
                f"{error.rmse:.3f}",
                f"{error.ratio:.2f}",
            )
    return table


def spark(values: Sequence[float | None], most: float, least: float = 0.0) -> str:
    """Return a line of bars, one for each value; a blank for none.

    Example:
        >>> spark([0.0, 0.5, None, 1.0], 1.0)
        '▁▅ █'
    """
    span = max(most - least, 1e-12)
    return "".join(
        " " if value is None else "▁▂▃▄▅▆▇█"[min(7, max(0, int((value - least) / span * 8)))] for value in values
    )


def _chance(chance: float) -> str:
    return f"{chance * 100:.2g}%"
