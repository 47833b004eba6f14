"""Callers that wait for a place: bounded in number and in time, and called off at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from threading import Condition
from typing import Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.runtime import called_off
from runvisor.policies.errors import PoolExhausted, QueueFull

_RETRY: Final = {"retry_after_s": 1.0}


class WaitingLine:
    """The callers that wait for something behind one condition.

    Args:
        changed: Notified when what they wait for may have come; its lock guards this too.
        max_waiting: Callers that may wait at once.
        awaited: What they wait for, for messages: ``place``, ``instance``.

    Example:
        >>> changed = Condition()
        >>> line = WaitingLine(changed, 256, "place")
        >>> with changed:
        ...     line.wait_until(lambda: True, 0.0, lambda: "2 busy")
        >>> line.length
        0
    """

    def __init__(self, changed: Condition, max_waiting: int, awaited: str) -> None:
        self._changed = changed
        self._max_waiting = max_waiting
        self._awaited = awaited
        self.length = 0
        """How many wait."""

    def wait_until(
        self,
        ready: Callable[[], bool],
        wait_s: float,
        busy: Callable[[], str],
        cancellation: Cancellation | None = None,
    ) -> None:
        """Wait, with the condition's lock held, until a predicate holds.

        Args:
            ready: The predicate; what it raises comes out of here.
            wait_s: How long to wait.
            busy: Says what is in use instead, for the message.
            cancellation: Ends the waiting at once, also where the predicate holds.

        Raises:
            Cancelled: It was called off, and takes nothing.
            PoolExhausted: The time is over; ``retry_after_s`` is in the details.
            QueueFull: Too many callers wait already.
        """
        if cancellation is not None and cancellation.cancelled:
            raise called_off()
        if ready():
            return
        if self.length >= self._max_waiting:
            raise QueueFull(
                f"{self.length} callers already wait for one {self._awaited}",
                "",
                "send fewer tasks at once, or raise the pool's size",
                _RETRY,
            )
        deadline = time.monotonic() + wait_s
        self.length += 1
        try:
            with nullcontext() if cancellation is None else cancellation.waking(self._wake):
                while not self._has_come(ready, cancellation):
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        raise PoolExhausted(
                            f"no {self._awaited} came free in {wait_s:.3g} s ({busy()})",
                            "",
                            "retry later, or raise the pool's maximum",
                            _RETRY,
                        )
                    self._changed.wait(left_s)
        finally:
            self.length -= 1

    def _has_come(self, ready: Callable[[], bool], cancellation: Cancellation | None) -> bool:
        if cancellation is not None and cancellation.cancelled:
            self._changed.notify()  # the word that woke this caller may have been meant for another
            raise called_off()
        return ready()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
