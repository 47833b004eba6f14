"""Optimism about mean and variance: A. Sani, A. Lazaric and R. Munos, "Risk-Aversion in Multi-Armed Bandits",
NeurIPS 2012, algorithm 1 (MV-LCB), for losses in place of rewards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from runvisor.policies.scheduling.baselines.index import IndexScheduler
from runvisor.policies.scheduling.baselines.moments import Moments


class MvLcbScheduler(IndexScheduler):
    """Minimises ``variance + rho * mean - width * (5 + rho) * sqrt(ln n / (2 n_a))`` of losses over their scale.

    Args:
        width: 1 is the paper's, with ln(1/delta) = ln n.
        rho: Weight of the mean against the variance, as the paper writes it; with ``deviation``
            of the deviation against the mean.
        deviation: Take the deviation for the variance, which is what these policies are judged by.
        memory: See `IndexScheduler`.
        sees_queue: See `IndexScheduler`.
    """

    name = "mv-lcb"
    objective = "lower bound of mean and variance"

    def __init__(
        self,
        width: float = 0.003,
        *,
        rho: float = 1.0,
        deviation: bool = True,
        memory: int = 1000,
        sees_queue: bool = True,
    ) -> None:
        super().__init__(memory=memory, sees_queue=sees_queue)
        self.width = width
        self.rho = rho
        self.deviation = deviation

    def indices(
        self, known: Sequence[Moments], waits_s: Sequence[float], scale_s: float, draws: Sequence[float]
    ) -> list[float]:
        """Return the lower bounds; without draws the estimates themselves."""
        runs = [self.runs(belief) for belief in known]
        width = self.width * (5.0 + self.rho) * math.sqrt(math.log(max(2, sum(runs))) / 2.0) if draws else 0.0
        return [
            self._risk((belief.mean + wait) / scale_s, belief.variance / scale_s**2) - width / math.sqrt(count)
            for belief, wait, count in zip(known, waits_s, runs, strict=True)
        ]

    def _risk(self, mean: float, variance: float) -> float:
        return mean + self.rho * math.sqrt(variance) if self.deviation else variance + self.rho * mean
