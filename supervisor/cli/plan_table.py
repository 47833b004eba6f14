"""The live table of a plan: one line per step, changed as events come in."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from runvisor.supervisor.cli.output import visible
from runvisor.supervisor.plan.events import PlanEvent
from runvisor.supervisor.plan.markdown import parse_plan

_STYLES = {"done": "green", "failed": "red", "running": "yellow", "skipped": "dim"}


@dataclass(slots=True)
class _Row:
    state: str = "pending"
    runtime: str = ""
    why: str = ""
    latency_s: float | None = None
    isolation: str = ""
    runs: int = 0
    done: int = 0


class PlanTable:
    """Renders a plan as it runs.

    Args:
        text: The plan's text.

    Raises:
        InvalidPlan: It does not parse.
    """

    def __init__(self, text: str) -> None:
        plan = parse_plan(text)
        self.title = visible(plan.title)
        self.steps = tuple(step.id for step in plan.steps)
        self._rows = {step: _Row() for step in self.steps}

    def note(self, event: PlanEvent) -> None:
        """Change the line that an event is about."""
        row = self._rows.get(event.step)
        if row is None:
            return
        if event.kind in ("started", "retrying"):
            row.state = "running"
        elif event.kind == "expanded":
            row.state, row.runs = "running", event.count or 0
        elif event.kind in ("finished", "failed", "skipped"):
            self._ended(row, event)

    def _ended(self, row: _Row, event: PlanEvent) -> None:
        if event.runtime:
            row.runtime = f"{event.runtime}/{event.variant}"
            row.isolation = event.isolation
            row.why = event.explanation.removeprefix(f"Chose {row.runtime}").lstrip(":, ")
        if event.index is not None:
            row.done += event.kind == "finished"
            return
        row.state = {"finished": "done"}.get(event.kind, event.kind)
        row.latency_s = event.latency_s
        if event.kind == "skipped":
            row.why = event.reason
        elif event.error is not None:
            row.why = str(event.error)

    def __rich__(self) -> RenderableType:
        table = Table(title=self.title, expand=True)
        for name in ("step", "state", "runtime", "latency", "isolation"):
            table.add_column(name, no_wrap=True, justify="right" if name == "latency" else "left")
        table.add_column("why", ratio=1, no_wrap=True, overflow="ellipsis")
        for step, row in self._rows.items():
            runs = f" {row.done}/{row.runs}" if row.runs else ""
            table.add_row(
                step,
                Text(row.state + runs, style=_STYLES.get(row.state, "")),
                row.runtime,
                "" if row.latency_s is None else f"{row.latency_s * 1e3:.1f} ms",
                row.isolation,
                Text(visible(row.why)),
            )
        return table
