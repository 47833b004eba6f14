"""Sessions of a pool: who owns which, how many there may be, and when one has idled too long."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from runvisor.actors.runtime import Cell, OpenSession, PoolSize, Watch
from runvisor.policies.errors import Cancelled, ConfigError, SessionBusy, SessionLost, TooManySessions
from runvisor.policies.result import Result
from runvisor.policies.values import is_number

_TOKEN_BYTES: Final = 32
_MAX_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How many sessions a pool keeps, and for how long.

    Example:
        >>> SessionLimits(total=2, idle_s=60.0).per_principal
        2

    Raises:
        ConfigError: A bound is not positive, or contradicts another.
    """

    total: int = 8
    """Open at once. Each occupies an instance of the pool."""
    per_principal: int = 6
    """Open at once for one principal; at most ``total``."""
    idle_s: float = 600.0
    """A session that ran nothing for so long is ended, unless its owner asked for another bound."""
    max_idle_s: float = 4 * 3600.0
    """The longest bound that an owner may ask for."""
    lifetime_s: float = 24 * 3600.0
    """A session is ended at this age when it next is idle; its cells have bounds of their own."""

    def __post_init__(self) -> None:
        for name in ("total", "per_principal"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ConfigError(f"{number!r} is no number of sessions", name, "give at least 1")
        for name in ("idle_s", "max_idle_s", "lifetime_s"):
            number = getattr(self, name)
            if not is_number(number) or not 0 < number < float("inf"):
                raise ConfigError(f"{number!r} is no time", name, "give a number of seconds above 0")
        if self.idle_s > self.max_idle_s:
            raise ConfigError("idle_s is longer than max_idle_s", "idle_s", "raise max_idle_s")
        object.__setattr__(self, "per_principal", min(self.per_principal, self.total))

    @classmethod
    def for_pool(cls, size: PoolSize) -> SessionLimits:
        """Leave at least half of a pool's instances to tasks, and a quarter of the rest to other principals.

        Example:
            >>> limits = SessionLimits.for_pool(PoolSize(maximum=16))
            >>> limits.total, limits.per_principal
            (8, 6)
        """
        total = max(1, size.maximum // 2)
        return cls(total=total, per_principal=max(1, total * 3 // 4))


@dataclass(slots=True, eq=False)
class _Kept:
    """One session and its state here; guarded by the lock of `Sessions`."""

    principal: str
    session: OpenSession | None
    """None while it is being opened."""
    idle_s: float
    opened_at: float
    used_at: float
    running: Watch | None = None
    lost: str = ""
    """Why it must end as soon as its cell has."""


class Sessions:
    """Keeps sessions for their owners. Safe from many threads.

    A session is reached by an unguessable token and by its owner alone: to
    anybody else it is as unknown as one that never was. One thread waits for
    the next expiry; it runs only while there are sessions.

    Args:
        limits: How many, and how long.
        clock: Seconds that only grow.

    Example:
        >>> from runvisor.policies.values import Packed
        >>> Sessions(SessionLimits()).run("ada", "no-such-token", Cell("1", Packed(b"")), Watch())
        Traceback (most recent call last):
        ...
        runvisor.policies.errors.SessionLost: there is no such session; open a new one
    """

    def __init__(self, limits: SessionLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._changed = threading.Condition()
        self._kept: dict[str, _Kept] = {}
        self._gone: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._timer: threading.Thread | None = None
        self._closed = False

    def open(self, principal: str, make: Callable[[], OpenSession], idle_s: float | None = None) -> str:
        """Open a session and return its token.

        Args:
            principal: Its owner.
            make: Makes it; called once.
            idle_s: When it expires unused; None is the usual bound.

        Raises:
            TooManySessions: The owner, or the pool, has as many as it may.
        """
        idle_s = self._limits.idle_s if idle_s is None else min(idle_s, self._limits.max_idle_s)
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        kept = self._admit(principal, token, idle_s)
        try:
            session = make()
        except BaseException:
            with self._changed:
                self._kept.pop(token, None)
            raise
        with self._changed:
            kept.session = session
            kept.opened_at = kept.used_at = self._clock()
            is_late = self._closed
            if not is_late and self._timer is None:
                self._timer = threading.Thread(target=self._watch, name="session-expiry", daemon=True)
                self._timer.start()
            self._changed.notify_all()
        if is_late:
            self._end(token, "the pool was closed")
        return token

    def run(self, principal: str, token: str, cell: Cell, watch: Watch) -> Result:
        """Run one cell; a cancellation interrupts it.

        Raises:
            SessionLost: The session is gone, or not the caller's.
            SessionBusy: It runs another cell.
            ConfigError: The cell is malformed; nothing ran, and the session lives.
        """
        with self._changed:
            kept, session = self._find(principal, token)
            if kept.running is not None:
                raise SessionBusy("the session runs another cell just now", "session", "wait for it, or interrupt it")
            kept.running = watch
        broken = "our side failed"
        try:
            result = session.run(cell, watch)
            broken = ""
        except ConfigError:
            broken = ""
            raise
        finally:
            with self._changed:
                kept.running = None
                kept.used_at = self._clock()
                lost = kept.lost
            if ended := lost or session.ended or broken:
                self._end(token, ended)
        if lost:
            error = Cancelled(f"the session ended while the cell ran: {lost}", "", "", {"session": "ended"})
            return replace(result, value=None, error=error)
        return result

    def session(self, principal: str, token: str) -> OpenSession:
        """Return a session to look at; it stays in keeping here.

        Raises:
            SessionLost: It is gone, or not the caller's.
        """
        with self._changed:
            return self._find(principal, token)[1]

    def interrupt(self, principal: str, token: str) -> bool:
        """Interrupt the running cell; say whether there was one.

        Raises:
            SessionLost: The session is gone, or not the caller's.
        """
        with self._changed:
            kept, _ = self._find(principal, token)
            running = kept.running
        if running is not None:
            running.cancellation.cancel()
        return running is not None

    def close(self, principal: str, token: str) -> None:
        """End a session, also in the middle of a cell.

        Raises:
            SessionLost: It is gone already, or not the caller's.
        """
        with self._changed:
            self._find(principal, token)
        self._end(token, "it was closed")

    def close_all(self) -> None:
        """End every session and open no more; calling it twice is fine."""
        with self._changed:
            self._closed = True
            tokens = [token for token, kept in self._kept.items() if kept.session is not None]
            timer = self._timer
            self._changed.notify_all()
        for token in tokens:
            self._end(token, "the pool was closed")
        if timer is not None:
            timer.join()

    def expire(self) -> float | None:
        """End what has idled too long, and return when to call this again: in so many seconds, or never."""
        with self._changed:
            due = [token for token, kept in self._kept.items() if self._is_due(kept)]
        for token in due:
            self._end(token, "it expired unused", only_if_idle=True)
        with self._changed:
            return self._wait_s()

    def tokens(self) -> frozenset[str]:
        """Return which sessions there are; for the pool's own use."""
        with self._changed:
            return frozenset(self._kept)

    def idle_tokens(self) -> frozenset[str]:
        """Return which sessions run nothing; for the pool's own use."""
        with self._changed:
            return frozenset(token for token, kept in self._kept.items() if kept.session and kept.running is None)

    def _admit(self, principal: str, token: str, idle_s: float) -> _Kept:
        with self._changed:
            if self._closed:
                raise SessionLost("the pool is closed", "session", "")
            own = sum(kept.principal == principal for kept in self._kept.values())
            for count, limit, whose in (
                (own, self._limits.per_principal, f"{principal} has"),
                (len(self._kept), self._limits.total, "the pool has"),
            ):
                if count >= limit:
                    raise TooManySessions(
                        f"{whose} {count} sessions open, and may have no more",
                        "session",
                        "close one, or wait for one to expire",
                        {"retry_after_s": 1.0},
                    )
            now = self._clock()
            kept = self._kept[token] = _Kept(principal, None, idle_s, now, now)
            return kept

    def _find(self, principal: str, token: str) -> tuple[_Kept, OpenSession]:
        """Return a session of this owner; with the lock held."""
        kept = self._kept.get(token)
        if kept is not None and kept.principal == principal and kept.session is not None and not kept.lost:
            return kept, kept.session
        owner, reason = self._gone.get(token, ("", ""))
        if kept is not None and kept.principal == principal:
            owner, reason = principal, kept.lost
        if reason and owner == principal:
            raise SessionLost(f"the session is gone: {reason}", "session", "open a new one", {"reason": reason})
        raise SessionLost("there is no such session", "", "open a new one")

    def _end(self, token: str, reason: str, *, only_if_idle: bool = False) -> None:
        """End a session now, or have the thread that runs its cell do so."""
        with self._changed:
            kept = self._kept.get(token)
            if kept is None or kept.session is None or (only_if_idle and not self._is_due(kept)):
                return
            kept.lost = kept.lost or reason
            if kept.running is not None:
                kept.session.kill()
                return
            del self._kept[token]
            self._gone[token] = (kept.principal, kept.lost)
            if len(self._gone) > _MAX_REMEMBERED:
                self._gone.popitem(last=False)
            self._changed.notify_all()
        kept.session.close()

    def _due_at(self, kept: _Kept) -> float:
        return min(kept.used_at + kept.idle_s, kept.opened_at + self._limits.lifetime_s)

    def _is_due(self, kept: _Kept) -> bool:
        return kept.session is not None and kept.running is None and self._due_at(kept) <= self._clock()

    def _wait_s(self) -> float | None:
        """Return when the next session can be due at the earliest; a cell that ends needs to wake nobody."""
        now = self._clock()
        waits = [
            kept.idle_s if kept.session is None or kept.running is not None else max(0.0, self._due_at(kept) - now)
            for kept in self._kept.values()
        ]
        return min(waits, default=None)

    def _watch(self) -> None:
        """Wait for the next expiry until the last session is gone."""
        while True:
            self.expire()
            with self._changed:
                if self._closed or not self._kept:
                    self._timer = None
                    return
                self._changed.wait(self._wait_s())
