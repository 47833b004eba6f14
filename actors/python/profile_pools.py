"""Pools of the profiles that run beside the default one: made at first use, few at once, ended when idle."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.runtime import Load, PoolSize
from runvisor.actors.waiting import WaitingLine
from runvisor.policies.errors import ConfigError, SpawnFailed, WorkerError

IDLE_S: Final = 600.0


@dataclass(slots=True, eq=False)
class _Kept:
    """One profile's pool; guarded by the lock of `ProfilePools`."""

    runtime: JailedRuntime
    used_at: float
    users: int = 1
    is_started: bool = False
    is_broken: bool = False


class ProfilePools:
    """Keeps a started runtime for each of the profiles lately used. Safe from many threads.

    One that is in use is never ended; the one unused longest makes room for
    another. One thread waits for the next to idle too long; it runs only while
    there are any.

    Args:
        make: Makes the runtime of a profile by its name; not started.
        maximum: How many at once.
        size: How long to wait for room, and how many callers may.
        idle_s: One that served nobody for so long is ended.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        make: Callable[[str], JailedRuntime],
        maximum: int,
        size: PoolSize,
        *,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._maximum = maximum
        self._wait_s = size.wait_s
        self._idle_s = idle_s
        self._clock = clock
        self._changed = threading.Condition()
        self._line = WaitingLine(self._changed, size.max_waiting, "profile's place")
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._timer: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def use(self, name: str, cancellation: Cancellation | None = None) -> Iterator[JailedRuntime]:
        """Lend the runtime of a profile, started first if need be; others may use it meanwhile.

        Args:
            name: A profile that there is.
            cancellation: Ends the waiting at once.

        Raises:
            ConfigError: It cannot be started; says what is missing.
            Cancelled: It was called off while it waited.
            PoolExhausted: All that may run at once are in use.
            QueueFull: Too many callers wait already.
        """
        kept = self._take(name, cancellation)
        try:
            yield kept.runtime
        except WorkerError:
            kept.is_broken = True
            raise
        finally:
            self._give_back(name, kept)

    def load(self) -> Load:
        """Return how busy all of them together are."""
        with self._changed:
            loads = [kept.runtime.load() for kept in self._kept.values() if kept.is_started]
            waiting = self._line.length
        return Load(
            sum(load.idle for load in loads),
            sum(load.busy for load in loads),
            waiting + sum(load.waiting for load in loads),
        )

    def names(self) -> tuple[str, ...]:
        """Return which profiles have a runtime, the one unused longest first."""
        with self._changed:
            return tuple(self._kept)

    def close(self) -> None:
        """End all of them; closing twice is fine."""
        with self._changed:
            self._closed = True
            ended = [kept.runtime for kept in self._kept.values()]
            self._kept.clear()
            timer = self._timer
            self._changed.notify_all()
        for runtime in ended:
            runtime.close()
        if timer is not None:
            timer.join()

    def _take(self, name: str, cancellation: Cancellation | None) -> _Kept:
        ended: list[_Kept] = []
        with self._changed:
            self._line.wait_until(lambda: self._may_take(name), self._wait_s, self._state, cancellation)
            kept = self._kept.get(name)
            if kept is not None and not kept.runtime.alive:
                del self._kept[name]  # its last user, if it has one, ends it
                ended += [kept] if kept.users == 0 else []
                kept = None
            if kept is not None:
                kept.users += 1
                self._kept.move_to_end(name)
                return kept
            made = _Kept(self._make(name), self._clock())
            if len(self._kept) >= self._maximum:
                ended.append(self._kept.pop(next(other for other, kept in self._kept.items() if kept.users == 0)))
            self._kept[name] = made
        for over in ended:
            over.runtime.close()
        try:
            made.runtime.start()
        except BaseException as error:
            with self._changed:
                self._kept.pop(name, None)
                self._changed.notify_all()
            made.runtime.close()
            if not isinstance(error, SpawnFailed):
                raise
            remedy = "use another profile, or tell the operator"
            raise ConfigError(f"the profile {name!r} cannot be started: {error}", "profile", remedy) from None
        with self._changed:
            made.is_started = True
            if self._timer is None and not self._closed:
                self._timer = threading.Thread(target=self._watch, name="profile-expiry", daemon=True)
                self._timer.start()
            self._changed.notify_all()
        return made

    def _may_take(self, name: str) -> bool:
        if self._closed:
            raise SpawnFailed("the pool is closed", "python")
        kept = self._kept.get(name)
        if kept is not None:
            return kept.is_started
        return len(self._kept) < self._maximum or any(other.users == 0 for other in self._kept.values())

    def _state(self) -> str:
        return f"{', '.join(self._kept)} in use"

    def _give_back(self, name: str, kept: _Kept) -> None:
        with self._changed:
            kept.users -= 1
            kept.used_at = self._clock()
            if kept.is_broken and self._kept.get(name) is kept:
                del self._kept[name]  # the next use makes another
            is_over = kept.users == 0 and self._kept.get(name) is not kept
            self._changed.notify_all()
        if is_over:
            kept.runtime.close()

    def _expire(self) -> None:
        with self._changed:
            due = [name for name, kept in self._kept.items() if self._left_s(kept) <= 0]
            ended = [self._kept.pop(name).runtime for name in due]
            self._changed.notify_all()
        for runtime in ended:
            runtime.close()

    def _left_s(self, kept: _Kept) -> float:
        """Return in how long it is idle for too long, as things are; one in use starts anew."""
        return self._idle_s if kept.users else kept.used_at + self._idle_s - self._clock()

    def _watch(self) -> None:
        while True:
            self._expire()
            with self._changed:
                if self._closed or not self._kept:
                    self._timer = None
                    return
                self._changed.wait(max(0.0, min(map(self._left_s, self._kept.values()))))
