"""The shape of latency around its prediction, learned rather than assumed.

Execution times have heavier tails than the log-normal distribution. Two things
are kept. The *ratio* of a run to its prediction, as mean and mean square, turns
a predicted logarithm into an expected time and a deviation (the smearing
estimate: N. Duan, JASA 78(383), 1983). The *tail* is a histogram of surprises in
units of their deviation, for quantiles and probabilities.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from runvisor.policies.scheduling.wire import check

EDGES: Final = (*(step / 2 for step in range(-8, 9)), 5.0, 6.0, 8.0, 10.0, 14.0, 20.0)
"""Where the classes of a tail end, in deviations; beyond the last one nothing is told apart."""
_BINS: Final = len(EDGES) + 1
_MIDDLES: Final = (-4.5, *((low + high) / 2 for low, high in pairwise(EDGES)), 22.0)
_PRIOR_RUNS: Final = 20.0
_MEMORY_RUNS: Final = 2000.0
_LEAST_SPREAD: Final = 1e-4
_LEAST_DEVIATION: Final = 1e-9


class Ratio:
    """Mean and mean square of runs over their predictions."""

    __slots__ = ("mean", "square")

    def __init__(self, mean: float = 1.1, square: float = 1.6) -> None:
        self.mean = mean
        self.square = square

    def learn(self, ratio: float, weight: float) -> None:
        """Take one run with a weight of at most 1."""
        self.mean += weight * (ratio - self.mean)
        self.square += weight * (ratio * ratio - self.square)

    def mixed(self, other: Ratio, share: float) -> tuple[float, float]:
        """Return the mean and deviation of a mixture, of which ``share`` is this one."""
        mean = share * self.mean + (1.0 - share) * other.mean
        square = share * self.square + (1.0 - share) * other.square
        return mean, math.sqrt(max(square - mean * mean, _LEAST_SPREAD))

    @classmethod
    def from_wire(cls, mean: float, square: float) -> Ratio:
        """Rebuild a ratio.

        Raises:
            ProtocolError: The numbers do not describe one.
        """
        check(holds=0 <= mean <= 1e3 and 0 <= square <= 1e6, what="a ratio")
        return cls(mean, square)


class Tail:
    """A histogram of surprises in deviations; it starts as the normal distribution and slowly forgets.

    Example:
        >>> tail = Tail()
        >>> round(tail.beyond(0.0), 2), round(tail.quantile(0.95), 1)
        (0.5, 1.7)
    """

    __slots__ = ("_below", "_p95", "_total", "counts")

    def __init__(self, counts: list[float] | None = None) -> None:
        self.counts = list(_NORMAL) if counts is None else counts
        self._below: list[float] | None = None
        self._p95: float | None = None
        self._total = sum(self.counts)

    def learn(self, surprise: float, weight: float) -> None:
        """Take one surprise in deviations."""
        counts = self.counts
        counts[bisect_right(EDGES, surprise)] += weight
        self._total += weight
        if self._total > _MEMORY_RUNS:
            self.counts = [0.5 * count for count in counts]
            self._total = sum(self.counts)
        self._below = self._p95 = None

    @property
    def p95(self) -> float:
        """The surprise that 95 of 100 runs keep below; kept until something is learned."""
        if self._p95 is None:
            self._p95 = self.quantile(0.95)
        return self._p95

    def beyond(self, surprise: float) -> float:
        """Return the probability of a larger surprise."""
        below = self._cumulated()
        index = bisect_right(EDGES, surprise)
        low, high = (below[index - 1] if index else 0.0), below[index]
        start = EDGES[index - 1] if index else 2 * _MIDDLES[0] - EDGES[0]
        end = EDGES[index] if index < len(EDGES) else 2 * _MIDDLES[-1] - EDGES[-1]
        share = min(1.0, max(0.0, (surprise - start) / (end - start)))
        return max(0.0, 1.0 - (low + (high - low) * share) / below[-1])

    def quantile(self, q: float) -> float:
        """Return the surprise that a share ``q`` of runs keeps below."""
        below = self._cumulated()
        wanted = q * below[-1]
        index = min(bisect_right(below, wanted), _BINS - 1)
        low, high = (below[index - 1] if index else 0.0), below[index]
        start = EDGES[index - 1] if index else 2 * _MIDDLES[0] - EDGES[0]
        end = EDGES[index] if index < len(EDGES) else 2 * _MIDDLES[-1] - EDGES[-1]
        return start + (end - start) * ((wanted - low) / (high - low) if high > low else 1.0)

    def mean_of_worst(self, share: float, deviation: float, most: float) -> float:
        """Return the mean of ``exp(deviation * surprise)`` over the largest surprises.

        Args:
            share: Which part of all runs, above 0 and at most 1.
            deviation: Of the logarithm.
            most: No run counts more than this.
        """
        left = wanted = share * sum(self.counts)
        total = 0.0
        for count, middle in zip(reversed(self.counts), reversed(_MIDDLES), strict=True):
            taken = min(count, left)
            total += taken * min(most, math.exp(min(deviation * middle, 50.0)))
            left -= taken
            if left <= 0:
                break
        return total / wanted

    def _cumulated(self) -> list[float]:
        if self._below is None:
            total, below = 0.0, []
            for count in self.counts:
                total += count
                below.append(total)
            self._below = below
        return self._below

    @classmethod
    def from_wire(cls, counts: Sequence[float]) -> Tail:
        """Rebuild a tail.

        Raises:
            ProtocolError: The numbers do not describe one.
        """
        fits = len(counts) == _BINS and all(0 <= count <= 1e6 for count in counts) and sum(counts) >= 1
        check(holds=fits, what="a tail")
        return cls(list(counts))


def log_beyond(bound: float, mean: float, deviation: float) -> float:
    """Return the expected value of a normal variable that is known to exceed a bound.

    The first moment of a truncated normal, ``mean + deviation * phi(z) / Q(z)``
    (J. Tobin, Econometrica 26(1), 1958), with the tail's asymptote far out. It
    is never below the bound.

    Example:
        >>> round(log_beyond(0.0, 0.0, 1.0), 3), round(log_beyond(9.0, 0.0, 1.0), 2)
        (0.798, 9.11)
    """
    deviation = max(deviation, _LEAST_DEVIATION)
    z = (bound - mean) / deviation
    if z > 6.0:
        return bound + deviation / z
    density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return max(bound, mean + deviation * density / (0.5 * math.erfc(z / math.sqrt(2.0))))


def _normal_below(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


_NORMAL: Final = tuple(
    _PRIOR_RUNS * (high - low)
    for low, high in zip((0.0, *map(_normal_below, EDGES)), (*map(_normal_below, EDGES), 1.0), strict=True)
)
