"""What is believed of one stream of outcomes: mean and variance of log latency, and a failure rate.

Latencies are learned as logarithms, because they are positive and spread over
orders of magnitude: a ratio of two is as much at 1 ms as at 1 s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from runvisor.policies.errors import ProtocolError

MOST_LOG_S: Final = math.log(1e9)
"""The largest logarithm of seconds that is believed."""
_LEAST_SPREAD: Final = 1e-9
_KINDS: Final = frozenset((int, float))


class Belief:
    """Running mean and variance that slowly forgets.

    Welford's update (B. P. Welford, Technometrics 4(3), 1962) in its normalised
    form; once ``memory`` values are in, the step stays at ``1 / memory``, which
    weights the past exponentially (D. H. D. West, CACM 22(9), 1979).

    Example:
        >>> belief = Belief()
        >>> for value in (1.0, 2.0, 3.0):
        ...     belief.add(value, memory=100)
        >>> belief.count, belief.mean, round(belief.variance, 6)
        (3, 2.0, 0.666667)
    """

    __slots__ = ("count", "mean", "variance")

    def __init__(self, count: int = 0, mean: float = 0.0, variance: float = 0.0) -> None:
        self.count = count
        self.mean = mean
        self.variance = variance

    def add(self, value: float, memory: int) -> None:
        """Take one value."""
        self.count += 1
        weight = 1.0 / min(self.count, memory)
        step = value - self.mean
        self.mean += step * weight
        self.variance += (step * (value - self.mean) - self.variance) * weight

    def to_wire(self) -> list[float]:
        """Return plain data."""
        return [self.count, self.mean, self.variance]

    @classmethod
    def from_wire(cls, data: Sequence[float]) -> Belief:
        """Rebuild a belief from three `numbers`.

        Raises:
            ProtocolError: They do not describe one.
        """
        count, mean, variance = data
        if count < 0 or count != int(count) or not 0 <= variance <= 1e4 or abs(mean) > MOST_LOG_S:
            raise ProtocolError("a belief is out of range")
        return cls(int(count), mean, variance)


class FailureRate:
    """Failures among trials, both fading with time.

    Time, not trials, fades them: an arm that was avoided for failing gets no
    trials, and would otherwise never be tried again after it healed.

    Example:
        >>> rate = FailureRate()
        >>> rate.add(failed=True, at=0.0, fade_s=60.0)
        >>> round(rate.estimate(0.0, 0.0, strength=10.0, fade_s=60.0), 3)
        0.091
        >>> round(rate.estimate(600.0, 0.0, strength=10.0, fade_s=60.0), 3)
        0.0
    """

    __slots__ = ("at", "failures", "trials")

    def __init__(self, failures: float = 0.0, trials: float = 0.0, at: float = 0.0) -> None:
        self.failures = failures
        self.trials = trials
        self.at = at
        """When the last trial ended, in Unix seconds."""

    def add(self, *, failed: bool, at: float, fade_s: float) -> None:
        """Take one trial."""
        kept = math.exp((self.at - at) / fade_s) if at > self.at else 1.0
        self.failures = self.failures * kept + failed
        self.trials = self.trials * kept + 1.0
        self.at = max(self.at, at)

    def estimate(self, now: float, prior: float, *, strength: float, fade_s: float) -> float:
        """Return the probability of a failure: the posterior mean under a beta prior.

        Args:
            now: Unix time in seconds.
            prior: The rate to expect without evidence.
            strength: How many trials that expectation is worth.
            fade_s: The time in which evidence fades to 1/e.
        """
        if not self.trials:
            return prior
        kept = math.exp((self.at - now) / fade_s) if now > self.at else 1.0
        return (self.failures * kept + strength * prior) / (self.trials * kept + strength)

    def to_wire(self) -> list[float]:
        """Return plain data."""
        return [self.failures, self.trials, self.at]

    @classmethod
    def from_wire(cls, data: Sequence[float]) -> FailureRate:
        """Rebuild a rate from three `numbers`.

        Raises:
            ProtocolError: They do not describe one.
        """
        failures, trials, at = data
        if not 0 <= failures <= trials + 1e-6:
            raise ProtocolError("a failure rate is out of range")
        return cls(failures, trials, at)


def log_beyond(bound: float, mean: float, spread: float) -> float:
    """Return the expected value of a normal variable that is known to exceed a bound.

    The first moment of a truncated normal, ``mean + spread * phi(z) / Q(z)``
    (J. Tobin, Econometrica 26(1), 1958), with the tail's asymptote far out. It
    is never below the bound.

    Example:
        >>> round(log_beyond(0.0, 0.0, 1.0), 3), round(log_beyond(9.0, 0.0, 1.0), 2)
        (0.798, 9.11)
    """
    spread = max(spread, _LEAST_SPREAD)
    z = (bound - mean) / spread
    if z > 6.0:
        return bound + spread / z
    density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    tail = 0.5 * math.erfc(z / math.sqrt(2.0))
    return max(bound, mean + spread * density / tail)


def numbers(data: object, size: int) -> list[float]:
    """Return a peer's list of finite numbers.

    Raises:
        ProtocolError: It is not a list of that many.
    """
    if not isinstance(data, list) or len(data) != size or not _KINDS.issuperset(map(type, data)):
        raise ProtocolError(f"{size} numbers were expected")
    if not math.isfinite(math.fsum(map(abs, data))):  # one sum finds any nan or infinity
        raise ProtocolError("a number is not finite")
    return data
