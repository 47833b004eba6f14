"""Takes the least mean, and now and then any arm.

C. J. C. H. Watkins, "Learning from Delayed Rewards", thesis, 1989; with a
constant rate, as in R. S. Sutton and A. G. Barto, "Reinforcement Learning",
2nd ed., section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from runvisor.policies.scheduling.baselines.draws import two_uniforms
from runvisor.policies.scheduling.baselines.index import IndexScheduler
from runvisor.policies.scheduling.baselines.moments import Moments


class EpsilonGreedyScheduler(IndexScheduler):
    """The arm with the least mean loss; with probability ``epsilon`` any of them.

    Args:
        epsilon: How often it explores.
        memory: See `IndexScheduler`.
        sees_queue: See `IndexScheduler`.
    """

    name = "epsilon-greedy"
    objective = "mean loss"

    def __init__(self, epsilon: float = 0.02, *, memory: int = 100, sees_queue: bool = True) -> None:
        super().__init__(memory=memory, sees_queue=sees_queue)
        self.epsilon = epsilon

    def indices(
        self, known: Sequence[Moments], waits_s: Sequence[float], scale_s: float, draws: Sequence[float]
    ) -> list[float]:
        """Return the means, or the draws when it explores."""
        del scale_s
        if draws:  # one draw says whether, and for the first arm also how far it comes in the lottery
            whether, first = two_uniforms(draws[0])
            if whether < self.epsilon:
                return [first, *(two_uniforms(draw)[1] for draw in draws[1:])]
        return [belief.mean + wait for belief, wait in zip(known, waits_s, strict=True)]
