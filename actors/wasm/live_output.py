"""Output on its way to the host while the guest still runs.

What is written is sent a moment later, by a thread that all runs share: a run
that ends within that moment pays nothing for it but a note, and one that writes
byte by byte costs a frame per moment, not per byte.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from runvisor.actors.channel.frames import Message

_DELAY_S: Final = 0.005


class Flusher:
    """Calls functions a moment after they were handed in; its thread starts with the first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: deque[tuple[float, Callable[[], None]]] = deque()
        self._started = False

    def soon(self, flush: Callable[[], None]) -> None:
        """Have a function called, from the flusher's thread."""
        with self._changed:
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="flusher", daemon=True).start()
            self._due.append((time.monotonic() + _DELAY_S, flush))
            if len(self._due) == 1:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due:
                    self._changed.wait()
                at, flush = self._due.popleft()
            time.sleep(max(0.0, at - time.monotonic()))
            flush()


class Prints(Protocol):
    """What a run prints into, and tells of it."""

    stdout: bytearray
    stderr: bytearray
    on_output: Callable[[], None] | None


class LiveOutput:
    """The output of one run that its host follows.

    Args:
        world: The run's; its ``on_output`` is set.
        emit: Sends an event to the host.
        flusher: The process's.
    """

    def __init__(self, world: Prints, emit: Callable[[Message], None], flusher: Flusher) -> None:
        self._world = world
        self._emit = emit
        self._flusher = flusher
        self._lock = threading.Lock()
        self._is_planned = False
        self._has_ended = False
        self._told = [0, 0]
        world.on_output = self._written

    def end(self) -> tuple[int, int]:
        """Return how much of stdout and of stderr was sent; nothing is after this."""
        with self._lock:
            self._has_ended = True
            return self._told[0], self._told[1]

    def _written(self) -> None:
        if not self._is_planned:
            self._is_planned = True
            self._flusher.soon(self._flush)

    def _flush(self) -> None:
        with self._lock:
            self._is_planned = False
            if self._has_ended:
                return
            for index, kept in enumerate((self._world.stdout, self._world.stderr)):
                if part := bytes(kept[self._told[index] :]):
                    self._told[index] += len(part)
                    try:
                        self._emit({"event": "output", "stream": index + 1, "data": part})
                    except OSError:  # the host has gone, and the lane's own thread will see it
                        self._has_ended = True
