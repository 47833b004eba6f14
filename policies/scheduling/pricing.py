"""What an objective makes of a prediction: numbers that a choice only has to multiply and add.

For all objectives but two the score of an arm is

    scale * time + failing * timeout + cold + waiting * wait + unsteady * deviation of the wait

with ``time = exp(predicted logarithm)``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

from runvisor.policies.scheduling.objective import WAITING, Objective
from runvisor.policies.scheduling.tails import Tail

_MOST_RATIO: Final = 1e4
_LEAST_SHARE: Final = 1e-6


class Predicted(NamedTuple):
    """What is predicted of one arm, in units of the exponential of its predicted logarithm."""

    mean: float
    """Expected time."""
    deviation: float
    """Its standard deviation."""
    log_deviation: float
    """Deviation of the logarithm of one run."""
    tail: Tail
    excess_failure_chance: float
    """By how much it is above that of all arms together. Only this is priced: what all arms share decides nothing,
    and an arm without a failure so far must not look better for having been tried more often."""
    cold_s: float
    """What a cold start adds, in seconds."""
    cold_share: float
    """How likely one is, where the caller does not know."""


class Price(NamedTuple):
    """The numbers for one arm."""

    scale: float
    failing: float
    cold_s: float
    """For a start that is surely cold."""


class WaitPrice(NamedTuple):
    """What waiting counts, whatever the arm."""

    waiting: float = 1.0
    unsteady: float = 0.0


def price_of(objective: Objective, predicted: Predicted, runtime: str, arm: str) -> Price:
    """Return an arm's numbers."""
    kind, failure_chance = objective.kind, predicted.excess_failure_chance
    if kind == "mean+std":
        scale = predicted.mean + objective.rho * predicted.deviation
        return Price(scale, failure_chance, predicted.cold_s)
    if kind == "slo":
        return Price(predicted.mean + predicted.deviation, failure_chance, predicted.cold_s)
    if kind == "cvar":
        worst = 1.0 - objective.q
        failing = min(1.0, failure_chance / worst)
        share = max(_LEAST_SHARE, (worst - failure_chance) / (1.0 - min(failure_chance, 0.999)))
        scale = predicted.tail.mean_of_worst(min(1.0, share), predicted.log_deviation, _MOST_RATIO)
        return Price((1.0 - failing) * scale, failing, predicted.cold_s)
    if kind == "cost":
        warm, cold = (objective.rate(runtime, arm, cold=is_cold) for is_cold in (False, True))
        rate = warm + predicted.cold_share * (cold - warm)
        return Price(rate * predicted.mean, rate * failure_chance, cold * predicted.cold_s)
    return Price(predicted.mean, failure_chance, predicted.cold_s)


def wait_price_of(objective: Objective) -> WaitPrice:
    """Return what waiting counts."""
    if objective.kind == "mean+std":
        return WaitPrice(1.0, objective.rho)
    if objective.kind == "cvar":  # the mean of a normal variable's worst, in deviations
        return WaitPrice(1.0, _normal_excess(1.0 - objective.q))
    if objective.kind == "cost":
        return WaitPrice(dict(objective.rates).get(WAITING, 0.0), 0.0)
    return WaitPrice()


@lru_cache(64)
def _normal_excess(share: float) -> float:
    low, high = -10.0, 10.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if 0.5 * math.erfc(middle / math.sqrt(2.0)) > share else (low, middle)
    return math.exp(-0.5 * low * low) / math.sqrt(2.0 * math.pi) / share
