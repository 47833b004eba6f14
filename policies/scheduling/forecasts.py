"""What the beliefs say of some arms for one family, ready to choose by.

A row is made once per snapshot, family, set of arms and objective, and used for
every choice among them: what depends on the task alone is left to the choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.beliefs import ArmBelief, FamilyArm, FamilyBelief
from runvisor.policies.scheduling.breaker import Breaker
from runvisor.policies.scheduling.clocks import passed_s
from runvisor.policies.scheduling.decision import Candidate
from runvisor.policies.scheduling.effects import NO_WEIGHTS
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.scheduling.pricing import Predicted, WaitPrice, price_of, wait_price_of
from runvisor.policies.scheduling.tails import Tail
from runvisor.policies.scheduling.tuning import Tuning


class Term(NamedTuple):
    """One arm, as a choice needs it."""

    log_s: float
    """All effects but the features'."""
    doubt: float
    """By how much a standard normal draw moves it, to explore."""
    scale: float
    risk: float
    """With the scale the price of the objective."""


class Behind(NamedTuple):
    """The rest of what is believed of the arm, to explain a choice."""

    mean: float
    deviation: float
    log_deviation: float
    p95: float
    """Of the surprises, in deviations of the logarithm."""
    failure_chance: float
    excess_failure_chance: float
    samples: int
    tail: Tail
    spread: float
    """Deviation of the logarithm of one run, with the doubt about the family."""


class Queue(NamedTuple):
    """An arm's pool, to price its queue."""

    runtime: str
    arm: str
    service_s: float
    square: float
    usual_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """The arms that a task may run on, in their order."""

    tick: float
    """The time that it was made for."""
    arms: tuple[Arm, ...]
    names: tuple[str, ...]
    terms: list[Term]
    weights: list[Sequence[float]]
    """What each feature adds to the logarithm."""
    colds: list[tuple[float, float]] | None
    """What a cold start costs, and how likely one is; None if it costs nothing anywhere."""
    nothing: list[float]
    """A zero per arm."""
    behind: list[Behind]
    queues: list[Queue]
    tripped: list[tuple[int, Breaker]]
    """Breakers that are not closed."""
    unseen: tuple[int, ...]
    """Arms that this family has no belief about."""
    is_known: bool
    """Whether anything is known of any of them."""
    wait_price: WaitPrice

    def candidates(
        self, times_s: Sequence[float], scores: Sequence[float], waits_s: Sequence[float] | None
    ) -> tuple[Candidate, ...]:
        """Return what was believed of each arm when a choice was made.

        Args:
            times_s: The exponential of each arm's predicted logarithm.
            scores: What was compared.
            waits_s: Expected waits, if loads were known.
        """
        return tuple(
            Candidate(
                name,
                times_s[index] * behind.mean,
                times_s[index] * behind.deviation,
                behind.samples,
                scores[index],
                p95_s=times_s[index] * math.exp(behind.log_deviation * behind.p95),
                wait_s=waits_s[index] if waits_s is not None else None,
                failure_chance=behind.failure_chance,
            )
            for index, (name, behind) in enumerate(zip(self.names, self.behind, strict=True))
        )


class Beliefs(NamedTuple):
    """What a row is made from."""

    base: float
    arms: Mapping[str, ArmBelief]
    failure_rate: float
    """Of all arms together."""
    tuning: Tuning


def row_of(
    beliefs: Beliefs, family: FamilyBelief | None, arms: tuple[Arm, ...], objective: Objective, at: float, tick: float
) -> Row:
    """Make a row.

    Args:
        beliefs: About arms.
        family: The one of the task, if it is known.
        arms: The eligible ones.
        objective: What the choice is to make small.
        at: Unix time in seconds.
        tick: What tells that time from others.
    """
    tuning = beliefs.tuning
    shared = family.effect.mean if family is not None else 0.0
    owns = family.arms if family is not None else {}
    terms: list[Term] = []
    weights: list[Sequence[float]] = []
    colds: list[tuple[float, float]] = []
    behind: list[Behind] = []
    queues: list[Queue] = []
    tripped: list[tuple[int, Breaker]] = []
    unseen: list[int] = []
    is_known = False
    strength, fade_s, explore = tuning.failure_strength, tuning.failure_fade_s, tuning.explore
    for index, arm in enumerate(arms):
        name = arm.name
        belief = beliefs.arms.get(name)
        own = owns.get(name)
        if belief is None:
            belief = ArmBelief(tuning)
        elif belief.runs or belief.pace.at or belief.level.mean:
            is_known = True
        drift, doubt = belief.drift.seen_from(at, tuning.drift_per_s, tuning.drift_reversion_s, tuning.most_drift)
        log_s = beliefs.base + belief.level.mean + drift + shared
        failing = belief.failures.estimate(at, beliefs.failure_rate, strength, fade_s)
        if own is not None:
            log_s += own.effect.mean
            own_doubt = own.effect.variance
            failing = own.failures.estimate(at, failing, strength, fade_s)
        else:
            unseen.append(index)
            own_doubt = tuning.family_arm_sd**2
        mean, deviation, noise = shape_of(belief, own, tuning.tail_strength)
        tail, cold, pace = belief.tail, belief.cold, belief.pace
        excess = failing - beliefs.failure_rate if failing > beliefs.failure_rate else 0.0
        log_deviation = math.sqrt(noise)
        predicted = Predicted(mean, deviation, log_deviation, tail, excess, cold.seconds, cold.share)
        scale, risk, cold_s = price_of(objective, predicted, arm.runtime, name)
        terms.append(Term(log_s, explore * math.sqrt(belief.level.variance + doubt + own_doubt), scale, risk))
        weights.append(belief.weights.means or NO_WEIGHTS)
        colds.append((cold_s, cold.share))
        samples = own.runs if own is not None and own.runs else belief.runs
        spread = math.sqrt(noise + own_doubt)
        behind.append(Behind(mean, deviation, log_deviation, tail.p95, failing, excess, samples, tail, spread))
        usual_s = pace.wait_s
        if usual_s:
            usual_s *= math.exp(-passed_s(pace.at, at) / fade_s)
        queues.append(Queue(arm.runtime, name, pace.service_s, pace.square, usual_s))
        if belief.breaker.pause_s:
            tripped.append((index, belief.breaker))
    names = tuple([queue.arm for queue in queues])
    return Row(
        tick,
        arms,
        names,
        terms,
        weights,
        colds if any(cold_s for cold_s, _ in colds) else None,
        [0.0] * len(terms),
        behind,
        queues,
        tripped,
        tuple(unseen),
        is_known,
        wait_price_of(objective),
    )


def shape_of(belief: ArmBelief, own: FamilyArm | None, strength: float) -> tuple[float, float, float]:
    """Return mean and deviation of a run over its prediction, and the variance of its logarithm."""
    if own is None or not own.weight:
        mean, deviation = belief.ratio.mixed(belief.ratio, 1.0)
        return mean, deviation, belief.noise
    share = own.weight / (own.weight + strength)
    mean, deviation = own.ratio.mixed(belief.ratio, share)
    return mean, deviation, share * own.noise + (1.0 - share) * belief.noise
