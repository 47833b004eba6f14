"""Takes any arm, each as likely."""

from __future__ import annotations

from collections.abc import Sequence

from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Choice, Context, check_arms
from runvisor.policies.scheduling.decision import Candidate


class RandomScheduler:
    """The arm with the least draw: the draws are alike and independent, so any arm is as likely as another.

    Example:
        >>> from runvisor.policies.scheduling.arms import ARMS
        >>> RandomScheduler().select(Context("c-record:s", 5.0), ARMS[3:5], 0.0, (0.1, -0.2)).arm
        'wasm/record'
    """

    name = "random"
    objective = "draw"

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Return an arm by chance; the first one if there are no draws."""
        del context, now
        check_arms(arms, draws)
        taken = min(range(len(arms)), key=draws.__getitem__) if draws else 0
        return Choice(arms[taken].name, False, tuple(Candidate(arm.name) for arm in arms))
