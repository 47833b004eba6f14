"""What a policy has learned, on its way from the supervisor to the handles.

The supervisor's `Learner` takes batches of outcomes from many handles and
publishes numbered snapshots; a handle holds one and only selects from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runvisor.policies.errors import ProtocolError
from runvisor.policies.scheduling.base import Ending, Outcome, Scheduler, Selector
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.prior import unpacked

__all__ = ["FORMAT", "MAX_BATCH", "POLICIES", "Ending", "Learner", "Outcome", "Snapshot"]

FORMAT: Final = 1
"""Version of the snapshot's wire form; another is refused. The state has one of its own."""
MAX_BATCH: Final = 4096
"""Outcomes in one batch."""

POLICIES: Final[Mapping[str, Callable[..., Selector]]] = {
    HierarchicalScheduler.name: HierarchicalScheduler.from_wire,
}
"""How to read each policy's state, by its name, with the keyword ``prior``. A new policy is one entry here."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One published state of a policy: to select from, not to learn with.

    Example:
        >>> wire = Learner(HierarchicalScheduler(), epoch=7).publish()
        >>> snapshot = Snapshot.from_wire(wire)
        >>> snapshot.epoch, snapshot.version
        (7, 0)
    """

    epoch: int
    """The supervisor's epoch."""
    version: int
    """Counts up within an epoch."""
    policy: Selector

    def supersedes(self, other: Snapshot) -> bool:
        """Say whether this is the newer of the two."""
        return (self.epoch, self.version) > (other.epoch, other.version)

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Snapshot:
        """Read a published snapshot.

        Raises:
            ProtocolError: It is of another format, names an unknown policy or is damaged.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ProtocolError(f"not a policy snapshot of format {FORMAT}", "snapshot", "run one version everywhere")
        name, epoch, version, state = (data.get(key) for key in ("policy", "epoch", "version", "state"))
        prior = data.get("prior") or b""
        read = POLICIES.get(name) if isinstance(name, str) else None
        if read is None:
            raise ProtocolError(f"unknown policy {name!r}", "snapshot", f"known: {', '.join(POLICIES)}")
        if not isinstance(state, Mapping) or not isinstance(prior, bytes) or not _are_counts(epoch, version):
            raise ProtocolError("a policy snapshot is damaged", "snapshot")
        policy = read(state, prior=unpacked(prior) if prior else None)
        return cls(int(epoch or 0), int(version or 0), policy)


class Learner:
    """The supervisor's side: learns from batches and publishes. Not for two threads at once.

    Args:
        scheduler: The policy; the learner owns it from now on.
        epoch: The supervisor's epoch, so that a restart's first snapshot supersedes the last one.
        prior: The packed prior that the policy was made with, which goes with each snapshot.
        arms: Names of the arms that there are; None learns of any. Room for arms is bounded, and
            names that a handle invents would take it for good.
    """

    def __init__(
        self, scheduler: Scheduler, *, epoch: int = 0, prior: bytes = b"", arms: Collection[str] | None = None
    ) -> None:
        self._scheduler = scheduler
        self._epoch = epoch
        self._prior = prior
        self._arms = arms
        self._version = 0
        self._published: dict[str, Any] | None = None

    @property
    def version(self) -> int:
        """The version that `publish` would carry."""
        return self._version

    def learn(self, batch: Iterable[Any], *, now: float) -> int:
        """Learn from one handle's batch of outcomes in wire form, in time order.

        All or nothing: a batch with one damaged outcome teaches nothing. A
        handle's clock is not trusted to be ahead of ours.

        Args:
            batch: `Outcome.to_wire` lists.
            now: Unix time in seconds.

        Returns:
            How many outcomes it learned from.

        Raises:
            ProtocolError: The batch is damaged or larger than `MAX_BATCH`.
        """
        if not isinstance(batch, list | tuple) or len(batch) > MAX_BATCH:
            raise ProtocolError(f"not a batch of at most {MAX_BATCH} outcomes", "outcomes")
        outcomes = sorted(map(Outcome.from_wire, batch), key=lambda outcome: outcome.at)
        if self._arms is not None:
            outcomes = [outcome for outcome in outcomes if outcome.arm in self._arms]
        for outcome in outcomes:
            self._scheduler.update(outcome if outcome.at <= now else outcome.moved_to(now))
        if outcomes:
            self._version += 1
            self._published = None
        return len(outcomes)

    def publish(self) -> dict[str, Any]:
        """Return the present snapshot as plain data; the same object until something is learned."""
        if self._published is None:
            self._published = {
                "format": FORMAT,
                "epoch": self._epoch,
                "version": self._version,
                "policy": self._scheduler.name,
                "state": self._scheduler.to_wire(),
                "prior": self._prior,
            }
        return self._published


def _are_counts(*values: object) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)
