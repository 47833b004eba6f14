"""What is believed of an arm, of a family, and of the one on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runvisor.policies.scheduling.breaker import Breaker
from runvisor.policies.scheduling.effects import Drift, Effect, Weights
from runvisor.policies.scheduling.failures import FailureRate
from runvisor.policies.scheduling.queueing import Pace
from runvisor.policies.scheduling.tails import Ratio, Tail
from runvisor.policies.scheduling.tuning import Tuning
from runvisor.policies.scheduling.wire import check, named, numbers

MAX_ARMS: Final = 64
MAX_ARMS_IN_FAMILY: Final = 16
"""Arms that are learned apart in one family; more of them share what is believed in general."""
FIRST_NOISE: Final = 0.15
"""Variance of one run's log service time, before it is known."""
_COLD_STEP: Final = 0.1
_COLD_SHARE_STEP: Final = 0.05


class ArmBelief:
    """One arm, over all families."""

    __slots__ = ("breaker", "cold", "drift", "failures", "level", "noise", "pace", "ratio", "runs", "tail", "weights")

    def __init__(self, tuning: Tuning) -> None:
        self.runs = 0
        """Runs to their end."""
        self.level = Effect(0.0, tuning.arm_sd**2)
        self.drift = Drift(0.0, 0.0)
        self.weights = Weights()
        self.noise = FIRST_NOISE
        self.ratio = Ratio()
        self.tail = Tail()
        self.failures = FailureRate()
        self.breaker = Breaker()
        self.pace = Pace()
        self.cold = ColdStart()

    def to_wire(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "runs": self.runs,
            "level": self.level.to_wire(),
            "drift": [*self.drift.to_wire(), self.drift.at],
            "weights": [*self.weights.means, *self.weights.variances],
            "noise": self.noise,
            "ratio": [self.ratio.mean, self.ratio.square],
            "tail": list(self.tail.counts),
            "failures": self.failures.to_wire(),
            "breaker": self.breaker.to_wire(),
            "pace": self.pace.to_wire(),
            "cold": self.cold.to_wire(),
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any], tuning: Tuning) -> ArmBelief:
        """Rebuild it; the errors that damaged data causes are the caller's to catch."""
        arm = cls(tuning)
        runs, noise = numbers([data["runs"], data["noise"]])
        check(holds=runs >= 0 and runs == int(runs) and 0 < noise <= 1e3, what="an arm")
        arm.runs, arm.noise = int(runs), noise
        arm.level = Effect.from_wire(*numbers(data["level"], 2))
        mean, variance, at = numbers(data["drift"], 3)
        Effect.from_wire(mean, variance)
        arm.drift = Drift(mean, variance, at)
        weights = numbers(data["weights"])
        arm.weights = Weights.from_wire(weights[: len(weights) // 2], weights[len(weights) // 2 :])
        arm.ratio = Ratio.from_wire(*numbers(data["ratio"], 2))
        arm.tail = Tail.from_wire(numbers(data["tail"]))
        arm.failures = FailureRate.from_wire(*numbers(data["failures"], 3))
        arm.breaker = Breaker.from_wire(*numbers(data["breaker"], 4))
        arm.pace = Pace.from_wire(*numbers(data["pace"], 4))
        arm.cold = ColdStart.from_wire(*numbers(data["cold"], 2))
        return arm


class ColdStart:
    """What starting cold costs on an arm, and how often it happens."""

    __slots__ = ("seconds", "share")

    def __init__(self, seconds: float = 0.0, share: float = 0.0) -> None:
        self.seconds = seconds
        self.share = share

    def learn(self, *, cold: bool, seconds: float) -> None:
        """Take one outcome; ``seconds`` counts only if it was cold."""
        self.share += _COLD_SHARE_STEP * (cold - self.share)
        if cold:
            self.seconds = self.seconds + _COLD_STEP * (seconds - self.seconds) if self.seconds else seconds

    def to_wire(self) -> list[float]:
        """Return plain data."""
        return [self.seconds, self.share]

    @classmethod
    def from_wire(cls, seconds: float, share: float) -> ColdStart:
        """Rebuild it.

        Raises:
            ProtocolError: The numbers do not describe one.
        """
        check(holds=0 <= seconds <= 1e9 and 0 <= share <= 1, what="a cold start")
        return cls(seconds, share)


class FamilyArm:
    """One arm in one family."""

    __slots__ = ("effect", "failures", "noise", "ratio", "runs", "weight")

    def __init__(self, tuning: Tuning) -> None:
        self.runs = 0
        self.effect = Effect(0.0, tuning.family_arm_sd**2)
        self.weight = 0.0
        """Runs behind the ratio and the noise, older ones fading."""
        self.ratio = Ratio(0.0, 0.0)
        self.noise = 0.0
        self.failures = FailureRate()

    def learn_shape(self, ratio: float, noise: float, share: float) -> None:
        """Take what one run says of the tail, and how much of a run it counts as."""
        self.weight = weight = self.weight * 0.998 + share
        self.ratio.learn(ratio, share / weight)
        self.noise += (noise - self.noise) * share / weight

    def to_wire(self) -> list[float]:
        """Return plain data; a list, because there are thousands."""
        effect, ratio, failures = self.effect, self.ratio, self.failures
        return [
            self.runs,
            effect.mean,
            effect.variance,
            self.weight,
            ratio.mean,
            ratio.square,
            self.noise,
            failures.failures,
            failures.trials,
            failures.at,
        ]

    @classmethod
    def from_wire(cls, data: object, tuning: Tuning) -> FamilyArm:
        """Rebuild it.

        Raises:
            ProtocolError: The data does not describe one.
        """
        runs, mean, variance, weight, first, second, noise, failures, trials, at = numbers(data, 10)
        check(holds=runs >= 0 and runs == int(runs) and 0 <= weight <= 501 and 0 <= noise <= 1e3, what="a family")
        own = cls(tuning)
        own.runs, own.weight, own.noise = int(runs), weight, noise
        own.effect = Effect.from_wire(mean, variance)
        own.ratio = Ratio.from_wire(first, second)
        own.failures = FailureRate.from_wire(failures, trials, at)
        return own


class FamilyBelief:
    """One family, over all arms."""

    __slots__ = ("arms", "effect")

    def __init__(self, tuning: Tuning) -> None:
        self.effect = Effect(0.0, tuning.family_sd**2)
        self.arms: dict[str, FamilyArm] = {}

    def to_wire(self) -> list[Any]:
        """Return plain data."""
        return [self.effect.to_wire(), {name: own.to_wire() for name, own in self.arms.items()}]

    @classmethod
    def from_wire(cls, data: Sequence[Any], tuning: Tuning) -> FamilyBelief:
        """Rebuild it; the errors that damaged data causes are the caller's to catch."""
        effect, arms = data
        family = cls(tuning)
        family.effect = Effect.from_wire(*numbers(effect, 2))
        family.arms = {name: FamilyArm.from_wire(row, tuning) for name, row in named(arms, MAX_ARMS_IN_FAMILY)}
        return family
