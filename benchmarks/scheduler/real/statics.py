"""Static rules: what somebody would write down who knew the recording and learned nothing afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

from benchmarks.scheduler.real.oracle import Knowledge
from benchmarks.scheduler.real.traces import ARMS, study
from benchmarks.scheduler.real.workload import PROGRAMS
from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Choice, Context, check_arms

_OTHERWISE: Final = 99


@dataclass(frozen=True, slots=True)
class FixedOrder:
    """The first arm of a fixed order that may run the task."""

    order: tuple[str, ...]
    name: str = "static order"
    objective: str = "place in a fixed order"

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Return the first eligible arm of the order."""
        del context, now
        check_arms(arms, draws)
        places = {name: place for place, name in enumerate(self.order)}
        return Choice(min(arms, key=lambda arm: places.get(arm.name, _OTHERWISE)).name, False, ())


@dataclass(frozen=True, slots=True)
class FixedTable:
    """One arm for each program that is known; the first eligible one for others."""

    arm_of: Mapping[tuple[str, tuple[float, ...]], str]
    """By family and features, which tell the recorded tasks apart."""
    name: str = "static table"
    objective: str = "place in a fixed table"

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Return the program's arm."""
        del now
        check_arms(arms, draws)
        wanted = self.arm_of.get((context.family, context.features), "")
        return Choice(wanted if any(arm.name == wanted for arm in arms) else arms[0].name, False, ())


def best_order(knowledge: Knowledge) -> FixedOrder:
    """Return the order of arms that would have cost least, had the recording been known before.

    By language: no arm serves two. From the half of the runs that the oracle knows.
    """
    eligible: dict[tuple[str, int], list[str]] = {}
    for program, size, arm in knowledge.known:
        eligible.setdefault((program, size), []).append(arm)
    order: list[str] = []
    for language in ("python", "javascript", "c-record"):
        cells = [(key, names) for key, names in eligible.items() if PROGRAMS[key[0]].language == language]
        names = [arm.name for arm in ARMS if language in arm.languages]

        def cost_s(candidate: Sequence[str], cells: Sequence[tuple[tuple[str, int], list[str]]] = cells) -> float:
            return sum(
                knowledge.known[*key, next(name for name in candidate if name in able)].cost_s for key, able in cells
            )

        order += min(permutations(names), key=cost_s)
    return FixedOrder(tuple(order))


def best_table(knowledge: Knowledge) -> FixedTable:
    """Return for each program the one arm that would have cost least over its sizes.

    More than a rule could know: it holds every program that will ever come.
    """
    costs: dict[str, dict[str, float]] = {}
    for (program, _, arm), moments in knowledge.known.items():
        table = costs.setdefault(program, {})
        table[arm] = table.get(arm, 0.0) + moments.cost_s
    arm_of = {}
    for program, table in costs.items():
        best = min(table, key=table.__getitem__)
        for size in range(len(PROGRAMS[program].sizes)):
            family, features, _ = study(PROGRAMS[program], size)
            arm_of[family, features] = best
    return FixedTable(arm_of)
