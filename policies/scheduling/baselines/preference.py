"""Takes the first arm: the operator's order is the policy."""

from __future__ import annotations

from collections.abc import Sequence

from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Choice, Context, check_arms
from runvisor.policies.scheduling.decision import Candidate


class PreferenceScheduler:
    """Always the first eligible arm. It is also the stub for tests.

    Example:
        >>> from runvisor.policies.scheduling.arms import ARMS
        >>> PreferenceScheduler().select(Context("c-record:s", 5.0), ARMS[3:5], 0.0, ()).arm
        'ebpf/record'
    """

    name = "preference"
    objective = "place in the order of preference"

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Return the first arm."""
        del context, now
        check_arms(arms, draws)
        candidates = tuple(Candidate(arm.name, score_s=float(place)) for place, arm in enumerate(arms))
        return Choice(arms[0].name, False, candidates)
