"""Outcomes on their way to the supervisor, in batches, off the caller's path."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

BATCH: Final = 256
INTERVAL_S: Final = 0.1


class Reporter:
    """Sends what it is given every 100 ms, or as soon as 256 items wait.

    Args:
        send: Delivers one batch; what it raises is dropped with the batch, since
            learning must never break a task.
    """

    def __init__(self, send: Callable[[list[Any]], None]) -> None:
        self._send = send
        self._waiting: list[Any] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def add(self, item: Any) -> None:
        """Take one item; never blocks on the network."""
        with self._changed:
            self._waiting.append(item)
            if len(self._waiting) in (1, BATCH):
                self._changed.notify()

    def close(self) -> None:
        """Send what is left and stop; closing twice is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._closed and len(self._waiting) < BATCH:
                    self._changed.wait_for(lambda: self._closed or len(self._waiting) >= BATCH, INTERVAL_S)
                batch, self._waiting = self._waiting, []
                closed = self._closed
            if batch:
                try:
                    self._send(batch)
                except Exception:  # the supervisor may be gone or restarting
                    batch.clear()
            if closed:
                return
