"""What the classical baselines share: an index for each arm from its own past losses, the least one wins."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Choice, Context, Outcome, check_arms, load_of
from runvisor.policies.scheduling.baselines.losses import Losses, queue_s
from runvisor.policies.scheduling.baselines.moments import Moments
from runvisor.policies.scheduling.decision import Candidate


class IndexScheduler(ABC):
    """Tries each arm of a family once, in an order that chance decides; then takes the one with the least index.

    A critical task tries nothing. What the textbook does not have: with
    ``sees_queue`` the wait that is expected from the pool's load counts as well.

    Args:
        memory: Losses after which older ones fade; one longer than the run never forgets.
        sees_queue: Whether to add the expected wait.
    """

    name = ""
    objective = ""

    def __init__(self, *, memory: int, sees_queue: bool) -> None:
        self._losses = Losses(memory)
        self._sees_queue = sees_queue

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Choose the arm with the least index; see `Selector.select`."""
        del now
        check_arms(arms, draws)
        if context.critical:
            draws = ()
        beliefs = [self._losses.of(context.family, arm.name) for arm in arms]
        candidates = tuple(map(_candidate, arms, beliefs))
        untried = [place for place, belief in enumerate(beliefs) if belief is None]
        if untried and (draws or len(untried) == len(arms)):
            taken = min(untried, key=draws.__getitem__) if draws else untried[0]
            return Choice(arms[taken].name, len(untried) < len(arms), candidates)
        tried = [place for place, belief in enumerate(beliefs) if belief is not None]
        known = [belief for belief in beliefs if belief is not None]
        waits = [self._wait_s(context, arms[place]) for place in tried]
        scale_s = self._losses.scale_s(context.family)
        indices = self.indices(known, waits, scale_s, [draws[place] for place in tried] if draws else [])
        best = min(range(len(tried)), key=indices.__getitem__)
        means = [belief.mean + wait for belief, wait in zip(known, waits, strict=True)]
        explored = bool(draws) and means[best] > min(means)
        return Choice(arms[tried[best]].name, explored, candidates)

    def update(self, outcome: Outcome) -> None:
        """Learn from one outcome."""
        self._losses.add(outcome)

    @abstractmethod
    def indices(
        self, known: Sequence[Moments], waits_s: Sequence[float], scale_s: float, draws: Sequence[float]
    ) -> list[float]:
        """Return each arm's index; the least one wins.

        Args:
            known: Mean and variance of each arm's losses in this family, in seconds, of one run or more.
            waits_s: The expected waits, to be added to the means.
            scale_s: The mean loss of the family: bounds of textbooks are for losses of the order of one.
            draws: A standard normal draw for each arm; empty is no exploration.
        """

    def runs(self, belief: Moments) -> int:
        """Return how many losses a belief still remembers."""
        return min(belief.count, self._losses.memory)

    def _wait_s(self, context: Context, arm: Arm) -> float:
        if not self._sees_queue:
            return 0.0
        return queue_s(load_of(arm, context.loads), self._losses.service_s(arm.name))


def _candidate(arm: Arm, belief: Moments | None) -> Candidate:
    if belief is None:
        return Candidate(arm.name)
    return Candidate(arm.name, belief.mean, belief.variance**0.5, belief.count)
