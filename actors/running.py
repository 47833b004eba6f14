"""What a pool runs just now, for those who look on."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from runvisor.actors.admission import Admitted
from runvisor.actors.runtime import Watch
from runvisor.policies.running import Running
from runvisor.policies.witness import KernelUsage


class Followed:
    """One execution, from its admission to its end.

    Args:
        number: No other of the pool has it.
        admitted: What runs, and for whom.
        label: In place of the task's own.
        has_started: Its instance has been lent already.
    """

    def __init__(self, number: int, admitted: Admitted, label: str, *, has_started: bool) -> None:
        self._number = number
        self._admitted = admitted
        self._label = label
        self._admitted_at = time.monotonic()
        self._has_started = has_started
        self._counts: Callable[[], KernelUsage | None] = _nothing

    def following(self, watch: Watch) -> Watch:
        """Return a watch that tells this too."""

        def started() -> None:
            self._has_started = True
            watch.started()

        return replace(watch, started=started, counted=self._counted)

    def now(self) -> Running:
        """Return how it stands."""
        grant, arm = self._admitted.grant, self._admitted.arm
        return Running(
            id=f"{arm.runtime}-{self._number}",
            principal=grant.principal,
            runtime=arm.runtime,
            variant=arm.variant,
            label=self._label,
            trust=grant.trust.label,
            state="running" if self._has_started else "waiting",
            age_s=time.monotonic() - self._admitted_at,
            kernel=self._counts(),
        )

    def _counted(self, counts: Callable[[], KernelUsage | None]) -> None:
        self._counts = counts


class RunningExecutions:
    """The executions of one pool that have not ended. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._followed: dict[int, Followed] = {}

    @contextmanager
    def follow(self, admitted: Admitted, label: str | None = None, *, has_started: bool = False) -> Iterator[Followed]:
        """Keep an execution here while the block runs.

        Args:
            admitted: What runs, and for whom.
            label: In place of the task's own.
            has_started: Its instance has been lent already.
        """
        number = next(self._numbers)
        label = admitted.task.label if label is None else label
        followed = Followed(number, admitted, label, has_started=has_started)
        with self._lock:
            self._followed[number] = followed
        try:
            yield followed
        finally:
            with self._lock:
                del self._followed[number]

    def now(self) -> list[Running]:
        """Return how each stands, the oldest first."""
        with self._lock:
            followed = list(self._followed.values())
        return [each.now() for each in followed]


def _nothing() -> None:
    return None
