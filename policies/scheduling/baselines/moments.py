"""Mean and variance of a stream of numbers."""

from __future__ import annotations


class Moments:
    """Running mean and variance that slowly forgets.

    Welford's update (B. P. Welford, Technometrics 4(3), 1962) in its normalised
    form; once ``memory`` values are in, the step stays at ``1 / memory``, which
    weights the past exponentially (D. H. D. West, CACM 22(9), 1979).

    Example:
        >>> moments = Moments()
        >>> for value in (1.0, 2.0, 3.0):
        ...     moments.add(value, memory=100)
        >>> moments.count, moments.mean, round(moments.variance, 6)
        (3, 2.0, 0.666667)
    """

    __slots__ = ("count", "mean", "variance")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.variance = 0.0

    def add(self, value: float, memory: int) -> None:
        """Take one value."""
        self.count += 1
        weight = 1.0 / min(self.count, memory)
        step = value - self.mean
        self.mean += step * weight
        self.variance += (step * (value - self.mean) - self.variance) * weight
