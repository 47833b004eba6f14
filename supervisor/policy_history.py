"""Choices and beliefs over time, made out of the journal by learning it once more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Final

from runvisor.policies.scheduling.arms import ARMS, Arm
from runvisor.policies.scheduling.base import Context, Ending, Outcome, Scheduler

_TIMEOUT_S: Final = 10.0
_KNOWN: Final = {arm.name: arm for arm in ARMS}


@dataclass(frozen=True, slots=True)
class ArmHistory:
    """One arm; each tuple has one item per slice of time."""

    arm: str
    choices: tuple[int, ...]
    """Executions that ended there."""
    lost: tuple[int, ...]
    """Those of them that failed on our side or ran out of time."""
    median_s: tuple[float | None, ...]
    """Of service times; None where nothing ran to its end."""
    believed_s: tuple[float | None, ...]
    """The mean that was expected at the end of the slice; None before the first execution."""
    believed_p95_s: tuple[float | None, ...]

    @property
    def runs(self) -> int:
        """Executions in all."""
        return sum(self.choices)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class History:
    """What ran where, and what was believed meanwhile."""

    ends: tuple[float, ...]
    """When each slice of time ends, in Unix seconds."""
    slice_s: float
    family: str
    """Whose executions and beliefs these are; empty is all executions, and beliefs about code that is new."""
    arms: tuple[ArmHistory, ...]
    """The busiest first."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "family": self.family,
            "slice_s": self.slice_s,
            "ends": self.ends,
            "arms": [arm.to_dict() for arm in self.arms],
        }


def history_of(outcomes: Sequence[Outcome], scheduler: Scheduler, *, family: str = "", slices: int = 60) -> History:
    """Let a scheduler learn outcomes in order, and note what it believes at the end of each slice of time.

    Args:
        outcomes: In order of time.
        scheduler: A fresh one; it learns all of them, of whatever family.
        family: Show this family only; its beliefs are asked for with the features of its last execution.
        slices: How many.
    """
    shown = [outcome for outcome in outcomes if not family or outcome.family == family]
    if not shown:
        return History((), 0.0, family, ())
    first, last = shown[0].at, shown[-1].at
    slice_s = max(last - first, 1e-6) / slices
    edges = [first + slice_s * index for index in range(slices)] + [math.nextafter(last, math.inf)]
    names = sorted({outcome.arm for outcome in shown})
    arms = [_arm(name) for name in names]
    ran: dict[str, list[list[Outcome]]] = {name: [] for name in names}
    believed: dict[str, list[tuple[float | None, float | None]]] = {name: [] for name in names}
    features: tuple[float, ...] = ()
    place = 0
    for begin, end in pairwise(edges):
        for name in names:
            ran[name].append([])
        while place < len(outcomes) and outcomes[place].at < end:
            outcome = outcomes[place]
            place += 1
            scheduler.update(outcome)
            if outcome.at >= begin and (not family or outcome.family == family):
                ran[outcome.arm][-1].append(outcome)
                features = outcome.features if family else ()
        choice = scheduler.select(Context(family or "new", _TIMEOUT_S, features=features), arms, end, ())
        for candidate in choice.candidates:
            is_known = candidate.samples > 0
            belief = (candidate.mean_s, candidate.p95_s) if is_known else (None, None)
            believed[candidate.arm].append(belief)
    histories = [_history(name, ran[name], believed[name]) for name in names]
    return History(tuple(edges[1:]), slice_s, family, tuple(sorted(histories, key=lambda arm: -arm.runs)))


def _history(
    name: str, ran: Sequence[Sequence[Outcome]], believed: Sequence[tuple[float | None, float | None]]
) -> ArmHistory:
    times = [[each.service_s for each in slice_ if each.ending is Ending.RAN] for slice_ in ran]
    return ArmHistory(
        name,
        tuple(map(len, ran)),
        tuple(sum(each.ending is not Ending.RAN for each in slice_) for slice_ in ran),
        tuple(median(slice_) if slice_ else None for slice_ in times),
        tuple(mean for mean, _ in believed),
        tuple(p95 for _, p95 in believed),
    )


def _arm(name: str) -> Arm:
    runtime, _, variant = name.partition("/")
    return _KNOWN.get(name) or Arm(runtime, variant, frozenset(), frozenset())
