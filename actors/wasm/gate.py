"""How many executions a runtime takes at once; the rest wait, and not without bound."""

from __future__ import annotations

from threading import Condition, Lock

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.runtime import Load, PoolSize
from runvisor.actors.waiting import WaitingLine


class Gate:
    """A bounded number of places, and a bounded queue before them.

    Args:
        size: ``maximum`` places, ``max_waiting`` callers that wait ``wait_s`` at most.

    Example:
        >>> gate = Gate(PoolSize(maximum=1))
        >>> gate.take()
        >>> gate.load().busy
        1
        >>> gate.give_back()
    """

    def __init__(self, size: PoolSize) -> None:
        self._size = size
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._line = WaitingLine(self._changed, size.max_waiting, "place")
        self._busy = 0

    def take(self, cancellation: Cancellation | None = None) -> None:
        """Take one place for one execution, which `give_back` ends.

        Args:
            cancellation: Ends the waiting at once.

        Raises:
            Cancelled: It was called off; no place was taken.
            PoolExhausted: None came free in time; ``retry_after_s`` is in the details.
            QueueFull: Too many callers wait already.
        """
        with self._lock:
            if self._busy >= self._size.maximum:
                self._line.wait_until(self._has_room, self._size.wait_s, self._state, cancellation)
            self._busy += 1

    def give_back(self) -> None:
        """Give a place to whoever waits."""
        with self._lock:
            self._busy -= 1
            if self._line.length:
                self._changed.notify()

    def load(self) -> Load:
        """Return how many places are free and taken, and how many callers wait."""
        return Load(max(0, self._size.maximum - self._busy), self._busy, self._line.length)

    def _has_room(self) -> bool:
        return self._busy < self._size.maximum

    def _state(self) -> str:
        return f"{self._busy} busy"
