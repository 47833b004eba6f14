"""The policies that are compared: those of the simulation, and static rules that know the recording."""

from __future__ import annotations

from typing import Final

from benchmarks.scheduler import contenders
from benchmarks.scheduler.contenders import Contender
from benchmarks.scheduler.real.statics import best_order, best_table
from benchmarks.scheduler.real.traces import Replays

ORACLE: Final = contenders.ORACLE.name
OURS: Final = contenders.OURS.name
ORDER: Final = "best order"
TABLE: Final = "best table"
RULES: Final = (contenders.STATIC.name, "preference", ORDER)
"""Rules that go by what can be seen of a task; the last one knows the recording."""


def make_contenders(replays: Replays) -> tuple[Contender, ...]:
    """Return all contenders, in the order of tables; the oracle is the first."""
    return (
        *contenders.CONTENDERS,
        Contender(ORDER, lambda: best_order(replays.quiet)),
        Contender(TABLE, lambda: best_table(replays.quiet)),
    )
