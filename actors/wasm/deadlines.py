"""Deadlines of the runs in one engine process: exact, and free while nobody is near one.

There is no periodic tick. One thread sleeps until the earliest deadline and
moves the epoch of every engine on by one; each running store is then asked, in
its own thread and at its next loop or call, whether it may go on (see epochs in
https://docs.wasmtime.dev/api/wasmtime/struct.Config.html#method.epoch_interruption).
Only a run whose own deadline has passed may not.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Final

_EARLY_S: Final = 0.0005
"""A wake-up so little early counts as in time."""
_AGAIN_S: Final = 0.005
"""After this long a run that is due and still there is told again."""
_UNKNOWN: Final = float("inf")
"""Of the next wake-up: none is planned, or it is being worked out; any run must say that it is there."""


class Deadlines:
    """The table of runs in progress and when each must end.

    Args:
        move_epochs: Moves the epoch of every engine on by one.
        clock: Monotonic seconds.
        tick_s: Move them periodically instead, at least so far apart, while anything runs:
            for stores that count ticks because they cannot ask.

    Example:
        >>> deadlines = Deadlines(lambda: None, clock=lambda: 10.0)
        >>> token = deadlines.token()
        >>> deadlines.begin(token, 5.0)
        >>> deadlines.may_go_on(token), deadlines.left_s(token)
        (True, 5.0)
        >>> deadlines.end(token)
        >>> deadlines.may_go_on(token)
        False
    """

    def __init__(
        self,
        move_epochs: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        tick_s: float | None = None,
    ) -> None:
        self._tick_s = tick_s
        self._move_epochs = move_epochs
        self._clock = clock
        self._changed = threading.Condition()
        self._until: dict[int, float] = {}
        self._tokens = itertools.count(1)
        self._called_off: set[int] = set()
        self._sleepers: dict[int, threading.Event] = {}
        self._wake_at = _UNKNOWN
        self._crowded_at = 0.0

    def start(self) -> None:
        """Start the thread that ends runs; it lives as long as the process."""
        threading.Thread(
            target=self._watch if self._tick_s is None else self._tick, name="deadlines", daemon=True
        ).start()

    def token(self) -> int:
        """Return a new token to know a run by, never zero."""
        return next(self._tokens)

    def begin(self, token: int, timeout_s: float) -> None:
        """Note a run that starts now.

        Takes no lock unless the sleeper must be woken: the run is noted before
        `_wake_at` is read, and `_watch` sets that to unknown before it looks.
        """
        now = self._clock()
        until = self._until[token] = now + timeout_s if token not in self._called_off else 0.0
        if len(self._until) > 1:
            self._crowded_at = now
        if until < self._wake_at:
            with self._changed:
                self._changed.notify()

    def end(self, token: int) -> None:
        """Forget a run. The sleeper is not woken for it: it finds out when it wakes anyway."""
        self._until.pop(token, None)
        self._called_off.discard(token)

    def call_off(self, token: int) -> None:
        """Let a run's deadline have passed, from any thread; also that of a run that is yet to begin."""
        self._called_off.add(token)
        if token in self._until:
            self._until[token] = 0.0
        if (event := self._sleepers.get(token)) is not None:
            event.set()
        with self._changed:
            self._changed.notify()

    def sleep(self, token: int, seconds: float) -> None:
        """Wait, in the thread of a run, until it is called off at the latest."""
        event = self._sleepers[token] = threading.Event()
        try:
            if token not in self._called_off:
                event.wait(seconds)
        finally:
            del self._sleepers[token]

    def is_calm(self, own: int, for_s: float) -> bool:
        """Say whether nothing runs beside the caller's own runs, and nothing has for a while.

        Args:
            own: How many runs are the caller's.
            for_s: How long no two may have run at once.
        """
        return len(self._until) <= own and self._clock() - self._crowded_at >= for_s

    def may_go_on(self, token: int) -> bool:
        """Say whether a run's deadline is still to come; an unknown run may not go on."""
        return self._clock() < self._until.get(token, 0.0) - _EARLY_S

    def left_s(self, token: int) -> float:
        """Return the seconds that a run still has, at least 0."""
        return max(0.0, self._until.get(token, 0.0) - self._clock())

    def _tick(self) -> None:
        tick_s = self._tick_s or _UNKNOWN
        while True:
            with self._changed:
                self._wake_at = _UNKNOWN
                if not self._until:
                    self._changed.wait()
            time.sleep(tick_s)
            self._move_epochs()

    def _watch(self) -> None:
        with self._changed:
            while True:
                self._wake_at = _UNKNOWN
                now = self._clock()
                runs = list(self._until.values())
                wake_at = min((until for until in runs if until - _EARLY_S > now), default=_UNKNOWN)
                if any(until - _EARLY_S <= now for until in runs):
                    self._move_epochs()
                    # Again until it has ended: a store that was just being told to go on counts from the moved epoch.
                    wake_at = min(wake_at, now + _AGAIN_S)
                self._wake_at = wake_at
                self._changed.wait(None if wake_at == _UNKNOWN else wake_at - now)
