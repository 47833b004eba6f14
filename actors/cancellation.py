"""Calling off what runs: a flag that a thread can set and a poll can wait for."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from runvisor.policies.errors import ProtocolError

MAX_ID_CHARACTERS: Final = 64
_MAX_EARLY: Final = 1024


class Cancellation:
    """Set once, from any thread; never unset.

    Three ways to hear of it: an action that `cancel` calls, a function that wakes
    a waiting thread, or a descriptor for a poll. The descriptor is an eventfd (see eventfd(2)), made when first asked
    for and readable from the moment of `cancel`.

    Example:
        >>> with Cancellation() as cancellation:
        ...     cancellation.cancel()
        ...     cancellation.cancelled
        True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._closed = False
        self._fd = -1
        self._wakes: list[Callable[[], None]] = []
        self._action: Callable[[], None] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether somebody has called it off."""
        return self._cancelled

    def cancel(self) -> None:
        """Call it off; harmless when that has been done, or when all is over."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)
            if self._action is not None:
                self._action()
            wakes = list(self._wakes)
        for wake in wakes:  # without our lock: each takes one of its own
            wake()

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Have a function called when this is called off while the block runs.

        For those who wait on a condition, who must look at `cancelled` once they are in the block.

        Args:
            wake: Called from the thread that calls `cancel`, maybe after the block's end; must not wait long.
        """
        with self._lock:
            self._wakes.append(wake)
        try:
            yield
        finally:
            with self._lock:
                self._wakes.remove(wake)

    def act(self, action: Callable[[], None] | None) -> None:
        """Say what `cancel` is to call, in its own thread; at once if it has been called.

        Once this has returned, the action that was set before is not called any more.

        Args:
            action: Must not wait or raise; None is nothing.
        """
        with self._lock:
            self._action = action
            if self._cancelled and action is not None:
                action()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable; it stays this object's.

        Raises:
            ValueError: It is closed.
        """
        with self._lock:
            if self._closed:
                raise ValueError("the cancellation is closed")
            if self._fd < 0:
                self._fd = os.eventfd(int(self._cancelled), os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            return self._fd

    def close(self) -> None:
        """Give the descriptor back; closing twice is fine."""
        with self._lock:
            self._closed = True
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Cancellation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Cancellations:
    """What runs just now, by owner and by the name that the owner gave it.

    A word that comes before its execution counts as well: the two travel on
    connections of their own. An owner can neither see nor reach another's.

    Example:
        >>> running = Cancellations()
        >>> with running.admit("ada", "1") as cancellation:
        ...     running.cancel("eve", "1"), running.cancel("ada", "1"), cancellation.cancelled
        (False, True, True)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], Cancellation] = {}
        self._early: OrderedDict[tuple[str, str], None] = OrderedDict()

    @contextmanager
    def admit(self, principal: str, execution: str) -> Iterator[Cancellation]:
        """Keep a cancellation under a name while the block runs.

        Args:
            principal: Whose execution it is.
            execution: Its name; empty is none, and only the caller of this can cancel it.

        Raises:
            ProtocolError: The principal runs something of this name already.
        """
        key = (principal, execution)
        with Cancellation() as cancellation:
            if execution:
                with self._lock:
                    if key in self._running:
                        raise ProtocolError(f"an execution named {execution!r} runs already", "execution")
                    self._running[key] = cancellation
                    was_early = self._early.pop(key, cancellation) is None
                if was_early:
                    cancellation.cancel()
            try:
                yield cancellation
            finally:
                if execution:
                    with self._lock:
                        del self._running[key]

    def cancel(self, principal: str, execution: str) -> bool:
        """Call off what runs under a name, or what will come under it.

        Returns:
            Whether it ran just now.
        """
        with self._lock:
            cancellation = self._running.get((principal, execution))
            if cancellation is None:
                self._early[(principal, execution)] = None
                if len(self._early) > _MAX_EARLY:
                    self._early.popitem(last=False)
                return False
        cancellation.cancel()
        return True


def execution_id(value: object) -> str:
    """Check the name that a request gives its execution; absent is no name.

    Raises:
        ProtocolError: It is not a short text.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or not value or len(value) > MAX_ID_CHARACTERS:
        raise ProtocolError(f"an execution's name is a text of at most {MAX_ID_CHARACTERS} characters", "execution")
    return value
