"""Takes the arms in turn."""

from __future__ import annotations

from collections.abc import Sequence

from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Choice, Context, check_arms
from runvisor.policies.scheduling.decision import Candidate


class RoundRobinScheduler:
    """Each time the next of the eligible arms.

    It is the one policy whose `select` changes something: whose turn it is. The
    turn is a handle's own and is learned from nobody.

    Example:
        >>> from runvisor.policies.scheduling.arms import ARMS
        >>> scheduler, context = RoundRobinScheduler(), Context("c-record:s", 5.0)
        >>> [scheduler.select(context, ARMS[3:5], 0.0, ()).arm for _ in range(3)]
        ['ebpf/record', 'wasm/record', 'ebpf/record']
    """

    name = "round-robin"
    objective = "place in the turn"

    def __init__(self) -> None:
        self._turn = -1

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Return the next arm."""
        del context, now
        check_arms(arms, draws)
        self._turn += 1
        return Choice(arms[self._turn % len(arms)].name, False, tuple(Candidate(arm.name) for arm in arms))
