"""What the scheduler believes of each arm, in numbers that people can read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, Literal, TypeAlias

from runvisor.policies.errors import ProtocolError
from runvisor.policies.scheduling.base import Outcome
from runvisor.policies.scheduling.beliefs import ArmBelief, FamilyBelief
from runvisor.policies.scheduling.breaker import Breaker
from runvisor.policies.scheduling.forecasts import shape_of
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.tuning import Tuning

_RECENT: Final = 100
BreakerState: TypeAlias = Literal["closed", "open", "half open"]


@dataclass(frozen=True, slots=True)
class ArmAccount:
    """One arm, as it is believed to be now."""

    arm: str
    runs: int
    """Runs that it is based on: of the family, if one was asked for."""
    median_s: float
    """Half of all runs are expected to take less, of code like that which ran there of late."""
    p95_s: float
    """Of 100 runs, 95 are expected to take less."""
    doubt: float
    """Factor by which the median may well be off: one standard deviation of the belief."""
    drift: float
    """Factor by which the arm runs slower just now than it usually does; below 1, faster."""
    failure_chance: float
    """Expected probability that our side fails or that the time runs out."""
    breaker: BreakerState
    """``open``: no task is sent; ``half open``: the next one that may explore is sent as a probe."""
    cold_s: float
    """What a cold start adds."""


def account_of(
    document: Mapping[str, Any], now: float, *, family: str = "", recent: Sequence[Outcome] = ()
) -> list[ArmAccount]:
    """Return what is believed of each arm, the busiest first.

    Args:
        document: A snapshot in wire form.
        now: Unix time in seconds.
        family: Of the tasks in question; empty is code of a new family.
        recent: Past executions: what their features were is what beliefs are shown for.

    Raises:
        ProtocolError: The document is damaged or of another policy.
        KeyError: The family is not known.
    """
    if document.get("policy") != HierarchicalScheduler.name:
        raise ProtocolError(f"beliefs of the policy {document.get('policy')!r} cannot be shown", "snapshot")
    state = document["state"]
    scheduler = HierarchicalScheduler.from_wire(state)  # checks all of it
    tuning = scheduler.tuning
    shared = FamilyBelief.from_wire(state["families"][family], tuning) if family else None
    base = float(state["base"][0])
    accounts = []
    for name, data in state["arms"].items():
        own_runs = shared.arms[name].runs if shared is not None and name in shared.arms else 0
        if shared is None or own_runs:
            features = _usual([each.features for each in recent if each.arm == name and family in ("", each.family)])
            accounts.append(_account(name, ArmBelief.from_wire(data, tuning), shared, base, tuning, now, features))
    return sorted(accounts, key=lambda account: -account.runs)


def families_of(document: Mapping[str, Any]) -> Sequence[str]:
    """Return the families that are known, the one seen last first."""
    return list(reversed(document["state"].get("families", ())))


def _account(
    name: str,
    arm: ArmBelief,
    family: FamilyBelief | None,
    base: float,
    tuning: Tuning,
    now: float,
    features: Sequence[float],
) -> ArmAccount:
    own = family.arms.get(name) if family is not None else None
    drift, drift_doubt = arm.drift.seen_from(now, tuning.drift_per_s, tuning.drift_reversion_s, tuning.most_drift)
    log_s = base + arm.level.mean + drift + arm.weights.sum(features)
    doubt = arm.level.variance + drift_doubt
    doubt += own.effect.variance if own is not None else tuning.family_sd**2 + tuning.family_arm_sd**2
    chance = arm.failures.estimate(now, 0.0, strength=tuning.failure_strength, fade_s=tuning.failure_fade_s)
    if family is not None and own is not None:
        log_s += family.effect.mean + own.effect.mean
        doubt += family.effect.variance
        chance = own.failures.estimate(now, chance, strength=tuning.failure_strength, fade_s=tuning.failure_fade_s)
    _, _, noise = shape_of(arm, own, tuning.tail_strength)
    return ArmAccount(
        name,
        own.runs if own is not None else arm.runs,
        math.exp(log_s),
        math.exp(log_s + math.sqrt(noise) * arm.tail.quantile(0.95)),
        math.exp(math.sqrt(doubt)),
        math.exp(drift),
        chance,
        _state(arm.breaker, now),
        arm.cold.seconds,
    )


def _usual(features: Sequence[tuple[float, ...]]) -> list[float]:
    """Return the mean features of the last executions."""
    last = [each for each in features[-_RECENT:] if len(each) == len(features[-1])]
    return [fmean(column) for column in zip(*last, strict=True)]


def _state(breaker: Breaker, now: float) -> BreakerState:
    if not breaker.is_tripped:
        return "closed"
    return "half open" if breaker.wants_probe(now) else "open"
