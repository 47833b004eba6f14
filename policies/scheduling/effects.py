"""Additive random effects on log service time, learned together from one surprise.

Each effect is a normal belief, a mean and a variance. What one run shows is a
sum of effects plus noise; the Kalman filter (R. E. Kalman, J. Basic Eng. 82(1),
1960) shares its surprise out in proportion to the variances. Correlations
between effects are left out: a state of two numbers each, and sums that are
right where it matters, at the price of learning who caused what a little slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import Final

from runvisor.policies.scheduling.clocks import passed_s
from runvisor.policies.scheduling.wire import check

MAX_WEIGHTS: Final = 64
MOST_LOG_S: Final = math.log(1e9)
"""The largest logarithm of seconds that is believed."""
NO_WEIGHTS: Final = (0.0,) * 6
_MOST_FEATURE: Final = 40.0


class Effect:
    """One normal belief.

    Example:
        >>> effect = Effect(0.0, 1.0)
        >>> effect.learn(step=0.5, gain=0.5)
        >>> effect.mean, effect.variance
        (0.5, 0.5)
    """

    __slots__ = ("mean", "variance")

    def __init__(self, mean: float, variance: float) -> None:
        self.mean = mean
        self.variance = variance

    def learn(self, step: float, gain: float) -> None:
        """Take its share of a surprise.

        Args:
            step: The surprise over its variance.
            gain: One over the variance of the surprise, less if the run says less.
        """
        variance = self.variance
        self.mean += variance * step
        self.variance = variance - variance * variance * gain

    def to_wire(self) -> list[float]:
        """Return plain data."""
        return [self.mean, self.variance]

    @classmethod
    def from_wire(cls, mean: float, variance: float) -> Effect:
        """Rebuild an effect.

        Raises:
            ProtocolError: The numbers do not describe one.
        """
        check(holds=abs(mean) <= 10 * MOST_LOG_S and 0 <= variance <= 1e4, what="an effect")
        return cls(mean, variance)


class Drift(Effect):
    """An effect that wanders, and fades unless outcomes keep it up (an Ornstein-Uhlenbeck process)."""

    __slots__ = ("at",)

    def __init__(self, mean: float = 0.0, variance: float = 0.0, at: float = 0.0) -> None:
        super().__init__(mean, variance)
        self.at = at
        """The time that it is believed of, in Unix seconds."""

    def seen_from(self, now: float, per_s: float, reversion_s: float, most: float) -> tuple[float, float]:
        """Return its mean and variance at another time."""
        passed = passed_s(self.at, now)
        if not passed:
            return self.mean, self.variance
        kept = math.exp(-passed / reversion_s)
        gained = 0.5 * reversion_s * per_s * (1.0 - kept * kept)  # what a random walk gains as it is pulled back
        return self.mean * kept, min(self.variance * kept * kept + gained, most)

    def move_to(self, now: float, per_s: float, reversion_s: float, most: float) -> None:
        """Believe it of a later time."""
        self.mean, self.variance = self.seen_from(now, per_s, reversion_s, most)
        if passed_s(self.at, now):
            self.at = now


class Weights:
    """How much each feature matters to one arm."""

    __slots__ = ("means", "variances")

    def __init__(self, means: list[float] | None = None, variances: list[float] | None = None) -> None:
        self.means = means or []
        self.variances = variances or []

    def sum(self, features: Sequence[float]) -> float:
        """Return what the features add; those that no outcome had add nothing."""
        total: float = sum(map(mul, self.means, features))
        return total

    def variance(self, features: Sequence[float], prior: float) -> float:
        """Return the doubt about that sum, making room for new features."""
        for _ in range(len(self.means), min(len(features), MAX_WEIGHTS)):
            self.means.append(0.0)
            self.variances.append(prior)
        return sum(variance * x * x for variance, x in zip(self.variances, features, strict=False))

    def learn(self, features: Sequence[float], step: float, gain: float) -> None:
        """Take their shares of a surprise."""
        means, variances = self.means, self.variances
        for index, x in enumerate(features[: len(means)]):
            if x:
                scaled = variances[index] * x
                means[index] += scaled * step
                variances[index] -= scaled * scaled * gain

    @classmethod
    def from_wire(cls, means: list[float], variances: list[float]) -> Weights:
        """Rebuild the weights.

        Raises:
            ProtocolError: The numbers do not describe any.
        """
        fits = len(means) == len(variances) <= MAX_WEIGHTS
        fits = fits and all(0 <= number <= 1e4 for number in variances) and all(abs(mean) <= 1e4 for mean in means)
        check(holds=fits, what="a weight")
        return cls(list(means), list(variances))


def sums(weights: Sequence[Sequence[float]], features: Sequence[float]) -> list[float]:
    """Return for each row of weights what the features add; missing weights are 0.

    Example:
        >>> sums([(1.0, 2.0), ()], (0.5, 1.0))
        [2.5, 0]
    """
    try:  # written out for as many features as tasks have: half the time
        a, b, c, d, e, f = features
        return [p * a + q * b + r * c + s * d + t * e + u * f for p, q, r, s, t, u in weights]
    except ValueError:
        return [sum(map(mul, row, features)) for row in weights]


def bounded(features: Sequence[float]) -> Sequence[float]:
    """Return features that cannot drown all else, whoever sent them."""
    if not features or (max(features) <= _MOST_FEATURE and min(features) >= -_MOST_FEATURE):
        return features
    return [min(max(x, -_MOST_FEATURE), _MOST_FEATURE) for x in features]
