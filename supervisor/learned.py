"""The supervisor's learning: fed by handles, published to them, and kept across its own death."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, cast

from runvisor.policies.scheduling.base import Scheduler
from runvisor.policies.scheduling.snapshot import Learner, Snapshot
from runvisor.supervisor.belief_file import BeliefFile

_SNAPSHOT_EVERY_S: Final = 1.0
_MAX_HANDLES: Final = 10_000
_LOG: Final = logging.getLogger(__name__)


class Learned:
    """Learns, publishes and saves. For the supervisor's event loop only.

    Args:
        fresh: Makes a policy that knows nothing.
        epoch: The supervisor's; a new one supersedes all that an older one has published.
        file: Where what was learned is kept; None keeps it nowhere.
        save_every_s: How long after an outcome it is saved at the latest.
        prior: The packed prior; empty is none.
        arms: Names of the arms that there are; outcomes of others teach nothing. None learns of any.
    """

    def __init__(
        self,
        fresh: Callable[[], Scheduler],
        epoch: int,
        file: BeliefFile | None,
        save_every_s: float,
        prior: bytes = b"",
        arms: Collection[str] | None = None,
    ) -> None:
        self._fresh = fresh
        self._epoch = epoch
        self._file = file
        self._save_every_s = save_every_s
        self._prior = prior
        self._arms = arms
        saved = file.read(lambda document: _policy_of(document, prior)) if file is not None else None
        self._learner = self._learning(saved)
        self._sent_at: dict[str, float] = {}
        self._saving: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def learn(self, handle: str, outcomes: list[Any], now: float) -> dict[str, Any]:
        """Learn from a handle's outcomes, and return the new snapshot.

        An empty dict is for a handle that was sent one within the last second: beliefs move
        slowly, and reading a large snapshot takes a handle milliseconds.

        Args:
            handle: The handle's name.
            outcomes: `Outcome.to_wire` lists.
            now: Unix time in seconds.

        Raises:
            ProtocolError: The outcomes are damaged, or too many.
        """
        self._learner.learn(outcomes, now=now)
        self._save_soon()
        if 0 <= now - self._sent_at.get(handle, 0.0) < _SNAPSHOT_EVERY_S:
            return {}
        if len(self._sent_at) > _MAX_HANDLES:
            self._sent_at.clear()
        self._sent_at[handle] = now
        return self.publish()

    def publish(self) -> dict[str, Any]:
        """Return the present snapshot as plain data."""
        return self._learner.publish()

    def forget(self, prior: bytes = b"") -> None:
        """Know nothing but a packed prior from now on, on disk either; handles hear of it with their next report."""
        self._prior = prior
        self._begin(None)

    def adopt(self, prior: bytes) -> None:
        """Keep what was learned, and expect of new families what a packed prior says."""
        self._prior = prior
        self._begin(_policy_of(self.publish(), prior))

    async def close(self) -> None:
        """Save what was learned last; closing twice is fine."""
        self._closing.set()
        if self._saving is not None:
            await self._saving

    def _begin(self, policy: Scheduler | None) -> None:
        self._epoch = max(time.time_ns(), self._epoch + 1)
        self._learner = self._learning(policy)
        self._sent_at.clear()
        self._save_soon()

    def _learning(self, policy: Scheduler | None) -> Learner:
        if policy is None:
            policy = self._fresh()
            if self._prior:
                policy = _policy_of(Learner(policy).publish(), self._prior)
        return Learner(policy, epoch=self._epoch, prior=self._prior, arms=self._arms)

    def _save_soon(self) -> None:
        if self._file is not None and (self._saving is None or self._saving.done()):
            self._saving = asyncio.get_running_loop().create_task(self._save_later())

    async def _save_later(self) -> None:
        saved: Learner | None = None
        version = -1
        while saved is not self._learner or version != self._learner.version:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), self._save_every_s)
            saved, version = self._learner, self._learner.version
            await self._save()

    async def _save(self) -> None:
        if self._file is None:
            return
        try:
            await asyncio.to_thread(self._file.write, self.publish())
        except OSError as error:  # learning goes on; only a restart would miss it
            _LOG.warning("what the scheduler has learned cannot be saved: %s", error)


def _policy_of(document: Mapping[str, Any], prior: bytes) -> Scheduler:
    """Return the policy of a snapshot with another prior; what can be published has learned."""
    return cast(Scheduler, Snapshot.from_wire({**document, "prior": prior}).policy)
