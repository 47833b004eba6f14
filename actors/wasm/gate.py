"""How many executions a runtime takes at once; the rest wait, and not without bound."""

from __future__ import annotations

import time
from threading import Condition, Lock
from types import TracebackType

from runvisor.actors.runtime import Load, PoolSize
from runvisor.policies.errors import PoolExhausted, QueueFull


class Gate:
    """A bounded number of places, and a bounded queue before them; ``with gate:`` holds one place.

    Args:
        size: ``maximum`` places, ``max_waiting`` callers that wait ``wait_s`` at most.

    Example:
        >>> gate = Gate(PoolSize(maximum=1))
        >>> with gate:
        ...     gate.load()
        Load(idle=0, busy=1, waiting=0)
    """

    def __init__(self, size: PoolSize) -> None:
        self._size = size
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._busy = 0
        self._waiting = 0

    def __enter__(self) -> None:
        """Take one place for one execution.

        Raises:
            PoolExhausted: None came free in time; ``retry_after_s`` is in the details.
            QueueFull: Too many callers wait already.
        """
        with self._lock:
            if self._busy >= self._size.maximum:
                self._wait()
            self._busy += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._busy -= 1
            if self._waiting:
                self._changed.notify()

    def load(self) -> Load:
        """Return how many places are free and taken, and how many callers wait."""
        return Load(max(0, self._size.maximum - self._busy), self._busy, self._waiting)

    def _wait(self) -> None:
        if self._waiting >= self._size.max_waiting:
            raise QueueFull(
                f"{self._waiting} callers already wait",
                "",
                "send fewer tasks at once, or raise the pool's size",
                {"retry_after_s": 1.0},
            )
        deadline = time.monotonic() + self._size.wait_s
        self._waiting += 1
        try:
            while self._busy >= self._size.maximum:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise PoolExhausted(
                        f"no place came free in {self._size.wait_s:g} s ({self._busy} busy)",
                        "",
                        "retry later, or raise the pool's maximum",
                        {"retry_after_s": 1.0},
                    )
                self._changed.wait(left_s)
        finally:
            self._waiting -= 1
