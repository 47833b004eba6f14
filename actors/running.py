"""What a pool runs just now, for those who look on."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from runvisor.actors.admission import Admitted, AdmittedObservation
from runvisor.actors.runtime import Watch
from runvisor.policies.running import Running, State
from runvisor.policies.witness import KernelUsage


class Followed:
    """One execution, session or observation, from its admission to its end.

    Args:
        first: How it stands at first.
    """

    def __init__(self, first: Running) -> None:
        self._first = first
        self._admitted_at = time.monotonic()
        self._state = first.state
        self._counts: Callable[[], KernelUsage | None] = _nothing

    def following(self, watch: Watch) -> Watch:
        """Return a watch that tells this too."""

        def started() -> None:
            self._state = "running"
            watch.started()

        return replace(watch, started=started, counted=self._counted)

    def now(self) -> Running:
        """Return how it stands."""
        age_s = time.monotonic() - self._admitted_at
        return replace(self._first, state=self._state, age_s=age_s, kernel=self._counts())

    def _counted(self, counts: Callable[[], KernelUsage | None]) -> None:
        self._counts = counts


class RunningExecutions:
    """The executions and observations of one pool that have not ended. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._followed: dict[int, Followed] = {}

    def seen(self, admitted: Admitted, state: State = "waiting", label: str | None = None) -> Followed:
        """Return what an execution or a session is for those who look on; whoever asked keeps it.

        Args:
            admitted: What it is, and for whom.
            state: How it stands at first.
            label: In place of the task's own.
        """
        grant, arm = admitted.grant, admitted.arm
        label = admitted.task.label if label is None else label
        number = f"{arm.runtime}-{next(self._numbers)}"
        return Followed(
            Running(number, grant.principal, arm.runtime, arm.variant, label, grant.trust.label, state, 0.0)
        )

    def seen_observing(self, runtime: str, admitted: AdmittedObservation) -> Followed:
        """Return the same of an observation.

        Args:
            runtime: Who observes.
            admitted: What, and for whom.
        """
        who, number = admitted.principal, f"{runtime}-{next(self._numbers)}"
        label = f"{admitted.request.what} of {admitted.request.pid}"
        return Followed(Running(number, who, runtime, "observe", label, admitted.trust.label, "waiting", 0.0))

    @contextmanager
    def follow(self, followed: Followed) -> Iterator[Followed]:
        """Keep it here while the block runs."""
        key = id(followed)
        with self._lock:
            self._followed[key] = followed
        try:
            yield followed
        finally:
            with self._lock:
                del self._followed[key]

    def now(self) -> list[Running]:
        """Return how each stands, the oldest first."""
        with self._lock:
            followed = list(self._followed.values())
        return [each.now() for each in followed]


def _nothing() -> None:
    return None
