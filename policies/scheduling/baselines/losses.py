"""What past executions cost, per task family and arm: all that the classical baselines know."""

from __future__ import annotations

from typing import Final

from runvisor.policies.scheduling.base import Ending, Load, Outcome
from runvisor.policies.scheduling.baselines.moments import Moments

MAX_FAMILIES: Final = 512


def loss_s(outcome: Outcome) -> float:
    """Return what an execution cost, waiting left out: its time, or the timeout if it did not end well.

    A failure that was fast is no fast execution.
    """
    return outcome.service_s if outcome.ending is Ending.RAN else max(outcome.service_s, outcome.timeout_s)


def queue_s(load: Load | None, service_s: float) -> float:
    """Return how long the next request of a pool waits if each one before it takes ``service_s``.

    Example:
        >>> from runvisor.actors.runtime import Load
        >>> queue_s(Load(idle=0, busy=2, waiting=3), 0.1), queue_s(Load(idle=1), 0.1)
        (0.2, 0.0)
    """
    if load is None or load.waiting < load.idle:
        return 0.0
    return (load.waiting + 1 - load.idle) / max(1, load.idle + load.busy) * service_s


class Losses:
    """Mean and variance of losses by family and arm; the family not seen for longest makes room.

    Args:
        memory: Losses after which older ones fade.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self._families: dict[str, dict[str, Moments]] = {}
        self._services: dict[str, Moments] = {}

    def add(self, outcome: Outcome) -> None:
        """Take one outcome."""
        family = self._families.pop(outcome.family, None) or {}
        while len(self._families) >= MAX_FAMILIES:
            del self._families[next(iter(self._families))]
        self._families[outcome.family] = family
        family.setdefault(outcome.arm, Moments()).add(loss_s(outcome), self.memory)
        self._services.setdefault(outcome.arm, Moments()).add(outcome.service_s, self.memory)

    def of(self, family: str, arm: str) -> Moments | None:
        """Return what is known of an arm in a family."""
        return self._families.get(family, {}).get(arm)

    def scale_s(self, family: str) -> float:
        """Return the mean loss of a family over all arms: what its losses are to be divided by."""
        known = self._families.get(family, {}).values()
        runs = sum(belief.count for belief in known)
        return max(1e-6, sum(belief.mean * belief.count for belief in known) / runs) if runs else 1.0

    def service_s(self, arm: str) -> float:
        """Return how long an arm is occupied by an execution of any family."""
        belief = self._services.get(arm)
        return belief.mean if belief is not None else 0.0
