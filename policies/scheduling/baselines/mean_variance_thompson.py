"""Sampling of mean and variance: Q. Zhu and V. Y. F. Tan, "Thompson Sampling Algorithms for Mean-Variance
Bandits", ICML 2020, algorithm 3 (MVTS), for losses in place of rewards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from runvisor.policies.scheduling.baselines.draws import gamma, two_normals
from runvisor.policies.scheduling.baselines.index import IndexScheduler
from runvisor.policies.scheduling.baselines.moments import Moments

_SHAPE = _RATE = 0.5
"""Of the precision, before any loss."""


class MeanVarianceThompsonScheduler(IndexScheduler):
    """Samples precision and mean of each arm's losses, and minimises ``rho * mean + variance`` of the samples.

        precision ~ Gamma(1/2 + n/2, 1/2 + n * var/2),    mean ~ N(average, spread^2 / n)

    for losses over the family's mean loss.

    Args:
        spread: 1 is the paper's.
        rho: Weight of the mean, as the paper writes it; with ``deviation`` that of the deviation.
        deviation: Take the deviation for the variance, which is what these policies are judged by.
        memory: See `IndexScheduler`.
        sees_queue: See `IndexScheduler`.
    """

    name = "mv-thompson"
    objective = "sampled mean and variance"

    def __init__(
        self,
        spread: float = 0.1,
        *,
        rho: float = 1.0,
        deviation: bool = True,
        memory: int = 1000,
        sees_queue: bool = True,
    ) -> None:
        super().__init__(memory=memory, sees_queue=sees_queue)
        self.spread = spread
        self.rho = rho
        self.deviation = deviation

    def indices(
        self, known: Sequence[Moments], waits_s: Sequence[float], scale_s: float, draws: Sequence[float]
    ) -> list[float]:
        """Return the sampled objectives; without draws those of the posterior's middle."""
        sampled = []
        for place, (belief, wait) in enumerate(zip(known, waits_s, strict=True)):
            first, second = two_normals(draws[place]) if draws else (0.0, 0.0)
            mean, precision = self.sample(belief, scale_s, first, second)
            mean += wait / scale_s
            variance = 1.0 / precision
            risk = mean + self.rho * math.sqrt(variance) if self.deviation else self.rho * mean + variance
            sampled.append(risk)
        return sampled

    def sample(self, belief: Moments, scale_s: float, first: float, second: float) -> tuple[float, float]:
        """Return a mean and a precision from the posterior, by two standard normal draws."""
        runs = self.runs(belief)
        precision = gamma(first, _SHAPE + runs / 2.0, _RATE + runs * belief.variance / scale_s**2 / 2.0)
        return belief.mean / scale_s + self.spread * second / math.sqrt(runs), precision
