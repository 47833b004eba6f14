"""The table of ``runvisor top``: a line for each execution, the busiest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runvisor.policies.running import Rates, Running
from runvisor.supervisor.cli.output import visible

_MAX_TEXT = 40


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one look showed."""

    counts: bool
    """The supervisor was asked to have the kernel count."""
    rows: Sequence[tuple[Running, Rates | None]] = ()
    uncounted: Mapping[str, str] = field(default_factory=dict)
    """Runtimes that are not counted although it was, and why."""
    loads: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By runtime: idle, busy and waiting."""
    address: str = ""
    """The Ray cluster that was looked at."""

    def sorted(self) -> list[tuple[Running, Rates | None]]:
        """Return the rows, the one that uses most CPU first, then the oldest."""
        return sorted(self.rows, key=lambda row: (-(row[1].cpu if row[1] is not None else -1.0), -row[0].age_s))

    def by_id(self) -> dict[str, Running]:
        """Return what ran, by id: for the rates at the next look."""
        return {each.id: each for each, _ in self.rows}


def render(snapshot: Snapshot) -> RenderableType:
    """Return the table, with a line above it about the pools and one below about what is off."""
    table = Table("id", "principal", "runtime", "label", "state", box=None, pad_edge=False)
    for heading in ("age s", "CPU %", "calls/s", "in B/s", "out B/s", "denials"):
        table.add_column(heading, justify="right")
    for each, rate in snapshot.sorted():
        table.add_row(*_cells(each), *_counts(each, rate))
    pools = " · ".join(
        f"{runtime}: {load.get('busy', 0)} busy, {load.get('idle', 0)} idle, {load.get('waiting', 0)} waiting"
        for runtime, load in snapshot.loads.items()
    )
    head = pools or "no pool has been started"
    parts: list[RenderableType] = [Text(f"{head} · Ray at {snapshot.address}", style="dim"), table]
    if not snapshot.rows:
        parts.append(Text("nothing runs", style="dim"))
    if not snapshot.counts:
        parts.append(Text('kernel accounting is off; start the supervisor with observability="kernel"', style="yellow"))
    parts += [Text(f"{runtime}: {visible(why)}", style="yellow") for runtime, why in snapshot.uncounted.items()]
    return Group(*parts)


def _cells(each: Running) -> tuple[Text, ...]:
    """Return what is known without the kernel; names and labels are others' words."""
    return (
        Text(each.id),
        Text(_short(each.principal)),
        Text(f"{each.runtime}/{each.variant}"),
        Text(_short(each.label)),
        Text(each.state, style="green" if each.state == "running" else "dim"),
        Text(f"{each.age_s:.1f}"),
    )


def _counts(each: Running, rate: Rates | None) -> tuple[Text, ...]:
    if each.kernel is None or rate is None:
        return (Text("-", style="dim"),) * 5
    denials = each.kernel.denials
    return (
        Text(f"{rate.cpu * 100:.0f}"),
        Text(f"{rate.syscalls:,.0f}"),
        Text(f"{rate.read_bytes:,.0f}"),
        Text(f"{rate.written_bytes:,.0f}"),
        Text(f"{denials:,}", style="bold red" if denials else ""),
    )


def _short(text: str) -> str:
    shown = visible(text).replace("\n", "␊").replace("\t", "␉")
    return shown if len(shown) <= _MAX_TEXT else shown[: _MAX_TEXT - 1] + "…"
