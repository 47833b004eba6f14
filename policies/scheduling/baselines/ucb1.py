"""Optimism about means: P. Auer, N. Cesa-Bianchi and P. Fischer, "Finite-time Analysis of the Multiarmed
Bandit Problem", Machine Learning 47, 2002; turned round for losses, so that the bound is a lower one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from runvisor.policies.scheduling.baselines.index import IndexScheduler
from runvisor.policies.scheduling.baselines.moments import Moments


class Ucb1Scheduler(IndexScheduler):
    """Minimises ``mean - width * scale * sqrt(2 ln n / n_a)``.

    Args:
        width: 1 is the paper's, for losses between 0 and ``scale``, here the family's mean loss.
        memory: See `IndexScheduler`.
        sees_queue: See `IndexScheduler`.
    """

    name = "ucb1"
    objective = "lower bound of the mean loss"

    def __init__(self, width: float = 0.03, *, memory: int = 100, sees_queue: bool = True) -> None:
        super().__init__(memory=memory, sees_queue=sees_queue)
        self.width = width

    def indices(
        self, known: Sequence[Moments], waits_s: Sequence[float], scale_s: float, draws: Sequence[float]
    ) -> list[float]:
        """Return the lower bounds; without draws, which a task that may not explore has none of, the means."""
        runs = [self.runs(belief) for belief in known]
        width = self.width * scale_s * math.sqrt(2.0 * math.log(max(2, sum(runs)))) if draws else 0.0
        return [
            belief.mean + wait - width / math.sqrt(count)
            for belief, wait, count in zip(known, waits_s, runs, strict=True)
        ]
