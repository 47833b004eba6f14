"""What one outcome teaches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from runvisor.policies.scheduling.base import Ending, Outcome
from runvisor.policies.scheduling.beliefs import MAX_ARMS_IN_FAMILY, ArmBelief, FamilyArm, FamilyBelief
from runvisor.policies.scheduling.effects import MOST_LOG_S
from runvisor.policies.scheduling.failures import OVERALL_MEMORY, FailureRate
from runvisor.policies.scheduling.forecasts import shape_of
from runvisor.policies.scheduling.tails import log_beyond
from runvisor.policies.scheduling.tuning import Tuning

_LEAST_S: Final = 1e-7
_CLIP: Final = 3.0
"""A single run counts at most this many predicted deviations away from the mean (P. J. Huber, 1964)."""
_LEAST_NOISE: Final = 0.003
_MOST_NOISE: Final = 25.0
_MOST_RATIO: Final = 30.0
_EARLY_RATIO: Final = 3.0
_EARLY_RUNS: Final = 10
_LEAST_WORTH: Final = 0.05
_COLD_WORTH: Final = 0.25
"""How much a run is believed whose cold start was not measured apart."""
_ARM_STEP: Final = 1e-6
_SHARED_STEP: Final = 1e-5
_UNUSUAL: Final = 0.05
"""An arm that fails more often than this says nothing of what is usual."""


class Learning:
    """One lesson. The order of calls is `learn_failures`, then `learn_latency`."""

    __slots__ = ("_arm", "_base", "_family", "_features", "_outcome", "_own", "_tuning")

    def __init__(
        self,
        tuning: Tuning,
        base: float,
        arm: ArmBelief,
        family: FamilyBelief,
        outcome: Outcome,
        features: Sequence[float],
    ) -> None:
        self._tuning = tuning
        self._base = base
        self._arm = arm
        self._family = family
        self._outcome = outcome
        self._features = features
        self._own = own_of(family, outcome.arm, tuning)

    def learn_failures(self, everywhere: FailureRate) -> bool:
        """Learn how often things fail; returns whether a probe has closed the arm's breaker.

        A time limit is a failure in its family and nowhere else: code that never ends, and limits that
        are too tight, anybody may send. What they say must not cost others the arm, nor open its breaker.
        """
        outcome, arm, own, tuning = self._outcome, self._arm, self._own, self._tuning
        timed_out = outcome.ending is Ending.TIMED_OUT
        failed = outcome.ending is Ending.FAILED
        at, fade_s = outcome.at, tuning.failure_fade_s
        is_usual = arm.failures.failures <= 1.0 + _UNUSUAL * arm.failures.trials
        everywhere.add(float(failed and is_usual), at=at, fade_s=fade_s, memory=OVERALL_MEMORY)
        arm.failures.add(float(failed), at=at, fade_s=fade_s)
        if own is not None:
            own.failures.add(float(failed or timed_out), at=at, fade_s=fade_s)
        if timed_out and not arm.breaker.is_tripped:
            return False
        closed = arm.breaker.learn(
            failed or timed_out,
            at=at,
            open_above=tuning.open_above,
            first_s=tuning.first_pause_s,
            most_s=tuning.most_pause_s,
        )
        if closed:
            arm.failures.forgive(0.2)
        return closed

    def learn_latency(self, *, calibrates: bool) -> float | None:
        """Learn how long things take.

        Args:
            calibrates: Only tell by how much all of what is predicted is off.

        Returns:
            That; None if it does not calibrate.
        """
        outcome, arm = self._outcome, self._arm
        arm.pace.learn(outcome.service_s, outcome.wait_s, outcome.at)
        if outcome.ending is Ending.FAILED:
            return None
        tuning, features, own, family = self._tuning, self._features, self._own, self._family
        arm.drift.move_to(outcome.at, tuning.drift_per_s, tuning.drift_reversion_s, tuning.most_drift)
        feature_doubt = arm.weights.variance(features, tuning.weight_sd**2) if features else 0.0
        log_s = self._base + arm.level.mean + arm.drift.mean + family.effect.mean + arm.weights.sum(features)
        level, shared = arm.level, family.effect
        level.variance += _ARM_STEP
        shared.variance += _SHARED_STEP
        doubt = level.variance + shared.variance + arm.drift.variance + feature_doubt
        if own is not None:
            effect = own.effect
            effect.variance = min(effect.variance + _SHARED_STEP, tuning.family_arm_sd**2)
            log_s += effect.mean
            doubt += effect.variance
        seen, worth = self._seen(log_s, math.sqrt(doubt + arm.noise))
        if worth < _LEAST_WORTH:
            return None
        if outcome.ending is Ending.RAN:
            arm.runs += 1
            if own is not None:
                own.runs += 1
        surprise = seen - log_s
        if calibrates:
            return surprise
        total = doubt + arm.noise
        familiar = min(1.0, 2.0 - 2.0 * (shared.variance + (own.effect.variance if own is not None else 0.0)) / total)
        most = _CLIP * math.sqrt(total)
        clipped = min(max(surprise, -most), most)
        gain = worth / total
        step = gain * clipped
        level.learn(step, gain)
        shared.learn(step, gain)
        arm.drift.learn(step, gain)
        if own is not None:
            own.effect.learn(step, gain)
        if features:
            arm.weights.learn(features, step, gain)
        if worth > _COLD_WORTH:
            self._learn_shape(surprise, clipped * clipped * arm.noise / total, worth, familiar)
        return None

    def _seen(self, log_s: float, deviation: float) -> tuple[float, float]:
        """Return the logarithm that the outcome shows, and from 0 to 1 how far to believe it."""
        outcome, arm = self._outcome, self._arm
        if outcome.ending is Ending.TIMED_OUT:
            bound = math.log(max(outcome.service_s or outcome.timeout_s, _LEAST_S))
            slow = arm.tail.beyond((bound - log_s) / deviation)
            hung = arm.failures.failures / (arm.failures.trials + 1.0)
            worth = slow / (slow + hung + 0.01)
            return min(MOST_LOG_S, log_beyond(bound, log_s, deviation)), worth
        if outcome.cold and not outcome.cold_s:
            mean, _, _ = shape_of(arm, self._own, self._tuning.tail_strength)
            warm_s = max(outcome.service_s - arm.cold.seconds, 0.1 * outcome.service_s, _LEAST_S)
            extra_s = max(0.0, outcome.service_s - mean * math.exp(min(log_s, MOST_LOG_S)))
            arm.cold.learn(cold=True, seconds=extra_s)
            return math.log(warm_s), _COLD_WORTH
        arm.cold.learn(cold=outcome.cold, seconds=outcome.cold_s)
        return math.log(max(outcome.service_s - outcome.cold_s, _LEAST_S)), 1.0

    def _learn_shape(self, surprise: float, noise: float, worth: float, familiar: float) -> None:
        """Learn how far single runs lie from their prediction.

        Args:
            surprise: Of this run's logarithm.
            noise: The part of its square that is the run's own, not the prediction's.
            worth: How far to believe it.
            familiar: Which share of such a surprise is not for want of knowing the family: a first run that is a
                hundred times longer than expected says nothing of the tail.
        """
        arm, runs = self._arm, self._arm.runs
        arm.tail.learn(surprise / math.sqrt(arm.noise), worth * familiar)
        step = max(0.005, 1.0 / (runs + 8.0)) * worth
        arm.noise = min(max(arm.noise + step * (noise - arm.noise), _LEAST_NOISE), _MOST_NOISE)
        ratio = min(math.exp(min(surprise, 9.0)), _MOST_RATIO if runs > _EARLY_RUNS else _EARLY_RATIO)
        arm.ratio.learn(ratio, familiar * max(0.004, 1.0 / (runs + 30.0)))
        if self._own is not None:
            self._own.learn_shape(ratio, noise, familiar)


def own_of(family: FamilyBelief, arm: str, tuning: Tuning) -> FamilyArm | None:
    """Return the belief about an arm in a family, made if there is room for it."""
    own = family.arms.get(arm)
    if own is None and len(family.arms) < MAX_ARMS_IN_FAMILY:
        own = family.arms[arm] = FamilyArm(tuning)
    return own


def expect(
    family: FamilyBelief,
    logs_s: Mapping[str, float],
    arms: Mapping[str, ArmBelief],
    base: float,
    features: Sequence[float],
    tuning: Tuning,
) -> bool:
    """Set the effects of a new family so that its predictions are those of a prior.

    Args:
        family: The new one.
        logs_s: The prior's logarithm of seconds by arm.
        arms: The beliefs about these arms.
        base: The scheduler's.
        features: Of the task that brought the family.
        tuning: The scheduler's.

    Returns:
        Whether there was anything to expect.
    """
    if not logs_s:
        return False
    off = {
        name: log_s - (base + arms[name].level.mean + arms[name].drift.mean + arms[name].weights.sum(features))
        for name, log_s in logs_s.items()
    }
    family.effect.mean = sum(off.values()) / len(off)
    for name, difference in off.items():
        if (own := own_of(family, name, tuning)) is not None:
            own.effect.mean = difference - family.effect.mean
    return True
