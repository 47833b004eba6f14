"""Takes the arm whose pool has the shortest queue for its size."""

from __future__ import annotations

from collections.abc import Sequence

from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Choice, Context, Load, check_arms, load_of
from runvisor.policies.scheduling.decision import Candidate


class LeastLoadedScheduler:
    """The arm with the least callers per instance; latency is nothing to it.

    Example:
        >>> from runvisor.policies.scheduling.arms import ARMS
        >>> LeastLoadedScheduler().select(Context("c-record:s", 5.0), ARMS[3:5], 0.0, ()).arm
        'ebpf/record'
    """

    name = "least-loaded"
    objective = "queue for its size"

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Return the least loaded arm; the first of equals."""
        del now
        check_arms(arms, draws)
        candidates = tuple(Candidate(arm.name, score_s=_pressure(load_of(arm, context.loads))) for arm in arms)
        best = min(candidates, key=lambda candidate: candidate.score_s or 0.0)
        return Choice(best.arm, False, candidates)


def _pressure(load: Load | None) -> float:
    if load is None:
        return 0.0
    return (load.busy + load.waiting) / max(1, load.idle + load.busy)
