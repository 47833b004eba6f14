"""A pool of instances that are made ahead, lent once and destroyed.

Not tied to Ray or to any runtime: it is given a function that makes an
instance and one that destroys it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.runtime import Load, PoolSize
from runvisor.actors.waiting import WaitingLine
from runvisor.policies.demand import Demand
from runvisor.policies.errors import RunvisorError, SpawnFailed

T = TypeVar("T")

_REFILL_THREADS: Final = 2
_MAX_FAILURES: Final = 3
_RETRY_S: Final = 0.2
_GRACE_S: Final = 0.002


class InstancePool(Generic[T]):
    """Keeps instances warm, as many as bursts have lately taken, and never more than ``size.maximum`` alive.

    Args:
        make: Makes one instance; may be called from two threads at once.
        destroy: Destroys one; must not raise.
        size: How many; at least ``size.minimum`` are kept warm.

    Example:
        >>> pool = InstancePool(lambda: "fresh", lambda instance: None, PoolSize(minimum=1, maximum=1))
        >>> pool.start()
        >>> with pool.lend() as instance:
        ...     instance
        'fresh'
        >>> pool.close()
    """

    def __init__(self, make: Callable[[], T], destroy: Callable[[T], None], size: PoolSize) -> None:
        self._make = make
        self._destroy = destroy
        self._size = size
        self._demand = Demand(size.minimum, size.maximum)
        self._changed = threading.Condition()
        self._line = WaitingLine(self._changed, size.max_waiting, "instance")
        self._idle: deque[T] = deque()
        self._spent: SimpleQueue[T | None] = SimpleQueue()
        self._busy = 0
        self._making = 0
        self._failures = 0
        self._last_error: RunvisorError | None = None
        self._closed = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Make the first instance, so that a machine that cannot is found out now; the rest follow.

        Raises:
            SpawnFailed: The first instance could not be made.
        """
        first = self._make()
        with self._changed:
            self._idle.append(first)
        for work in (self._bury, *[self._refill] * _REFILL_THREADS):
            thread = threading.Thread(target=work, name="instances", daemon=True)
            thread.start()
            self._threads.append(thread)

    @contextmanager
    def lend(
        self,
        wait_s: float | None = None,
        *,
        make: Callable[[], T] | None = None,
        cancellation: Cancellation | None = None,
    ) -> Iterator[T]:
        """Lend one instance for one task; it is destroyed after the block, however that ends.

        The destruction itself happens in the background, off the caller's path.

        Args:
            wait_s: How long to wait for one; None is the pool's own limit.
            make: Makes one for this task alone, in place of a warm one.
            cancellation: Ends the waiting at once; not heard any more when the instance is lent.

        Raises:
            Cancelled: It was called off; no instance was taken.
            PoolExhausted: None came free in time; ``retry_after_s`` is in the details.
            QueueFull: Too many callers wait already.
            SpawnFailed: The pool cannot make instances any more.
        """
        wait_s = self._size.wait_s if wait_s is None else wait_s
        instance = self._take(wait_s, cancellation) if make is None else self._make_for_one(wait_s, make, cancellation)
        try:
            yield instance
        finally:
            self._spent.put(instance)  # takes no lock of ours: the caller's answer is on its way

    def load(self) -> Load:
        """Return how busy it is."""
        return Load(len(self._idle), self._busy, self._line.length)

    def close(self) -> None:
        """Destroy what is idle and make no more; lent instances end with their leases."""
        with self._changed:
            self._closed = True
            idle = list(self._idle)
            self._idle.clear()
            self._changed.notify_all()
        self._spent.put(None)
        for thread in self._threads:
            thread.join(timeout=30)
        for instance in idle:
            self._destroy(instance)

    def _take(self, wait_s: float, cancellation: Cancellation | None) -> T:
        with self._changed:
            self._demand.note(time.monotonic())
            self._wait_until(lambda: bool(self._idle), wait_s, cancellation)
            self._busy += 1
            instance = self._idle.popleft()
            if self._wanted():  # else nobody has anything to do, and waking them would delay the task
                self._changed.notify_all()
            return instance

    def _make_for_one(self, wait_s: float, make: Callable[[], T], cancellation: Cancellation | None) -> T:
        """Make an instance that counts like any other; a warm one gives way to it."""
        with self._changed:
            self._wait_until(lambda: bool(self._idle) or self._alive() < self._size.maximum, wait_s, cancellation)
            if self._alive() >= self._size.maximum:
                self._busy += 1  # until it is destroyed
                self._spent.put(self._idle.popleft())
            self._busy += 1
        try:
            return make()
        except BaseException:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()
            raise

    def _alive(self) -> int:
        return len(self._idle) + self._busy + self._making

    def _wait_until(self, ready: Callable[[], bool], wait_s: float, cancellation: Cancellation | None) -> None:
        def is_ready() -> bool:
            if ready():
                return True
            if self._closed or self._failures >= _MAX_FAILURES:
                raise SpawnFailed(f"the pool makes no instances any more: {self._last_error or 'it is closed'}")
            return False

        def busy() -> str:
            return f"{self._busy} busy of {self._size.maximum}"

        self._line.wait_until(is_ready, wait_s, busy, cancellation)

    def _wanted(self) -> bool:
        """Say whether to make an instance now.

        Making one costs milliseconds of CPU that a running task would miss, so
        while tasks run the pool lets itself sink to half before it refills.
        """
        ready = len(self._idle) + self._making
        if self._alive() >= self._size.maximum:
            return False
        target = self._demand.target(time.monotonic())
        if self._busy and not self._line.length:
            return ready < max(1, target // 2)
        return ready < max(target, self._line.length)

    def _retire_one(self, now: float) -> None:
        """Let one warm instance go when bursts have become smaller than what is kept."""
        if not self._busy and len(self._idle) > self._demand.target(now):
            self._busy += 1  # until it is destroyed
            self._spent.put(self._idle.popleft())

    def _bury(self) -> None:
        """Destroy what was lent, a moment later: destroying and refilling would delay the answer."""
        while (instance := self._spent.get()) is not None:
            if not self._line.length:
                time.sleep(_GRACE_S)
            self._destroy(instance)
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _refill(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._wanted():
                    now = time.monotonic()
                    self._retire_one(now)
                    self._changed.wait(self._demand.next_change_s(now))
                if self._closed:
                    return
                self._making += 1
            try:
                made: T | None = self._make()
                error: RunvisorError | None = None
            except RunvisorError as caught:
                made, error = None, caught
            except Exception as caught:  # whatever it is, the pool must say so rather than stall
                made, error = None, SpawnFailed(f"{type(caught).__name__}: {caught}")
            with self._changed:
                self._making -= 1
                self._failures = self._failures + 1 if error else 0
                self._last_error = error
                if made is not None and not self._closed:
                    self._idle.append(made)
                    made = None
                self._changed.notify_all()
                if error and self._failures >= _MAX_FAILURES:
                    return
                if error:
                    self._changed.wait(_RETRY_S)
            if made is not None:
                self._destroy(made)
