"""How busy a pool is, as one handle sees it between two of the pool's answers.

What a pool says of its load is old the moment it is read, and many callers of
one handle decide in that moment. So a report ages, and what the handle has sent
since counts on top of it: a burst does not follow one stale report.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from runvisor.actors.runtime import Load

_FORGOTTEN_S: Final = 1.0
"""A report that says nothing of a backlog counts no more after so long."""
_FRESH_S: Final = 1e-3

Reading = Callable[[], tuple[Load, float]]
"""Returns the load that a pool shows just now, and since when by the monotonic clock."""


def aged(load: Load, age_s: float) -> Load:
    """Return what is left of a load after a while in which nothing was heard of it.

    Its backlog is worked off by as many places as there are; without that, a
    pool that was busy once would never be asked again. What others have sent to
    it meanwhile is not known: the next answer says that.

    Args:
        load: As it was.
        age_s: How long ago.

    Example:
        >>> aged(Load(idle=0, busy=2, waiting=4, backlog_s=6.0), 1.5)
        Load(idle=1, busy=1, waiting=2, backlog_s=3.0, at=0.0)
    """
    if age_s <= _FRESH_S or not load.busy + load.waiting:
        return load
    places = load.idle + load.busy
    worked_off_s = load.backlog_s / max(1, places) if load.backlog_s > 0 else _FORGOTTEN_S
    left = max(0.0, 1.0 - age_s / worked_off_s)
    busy = round(load.busy * left)
    return Load(places - busy, busy, round(load.waiting * left), load.backlog_s * left)


class LoadView:
    """One pool's load as one handle sees it. Safe from many threads.

    Args:
        load: What the supervisor said of it.
        at: When, by the monotonic clock.
        reading: What shows its load at any time, if it is on this node.

    Example:
        >>> view = LoadView(Load(idle=2), at=0.0)
        >>> with view.sending(0.5), view.sending(0.5), view.sending(0.5):
        ...     view.now(0.0)
        Load(idle=0, busy=2, waiting=1, backlog_s=1.5, at=0.0)
    """

    def __init__(self, load: Load, at: float, reading: Reading | None = None) -> None:
        self._load = load
        self._at = at
        self._reading = reading
        self._lock = threading.Lock()
        self._since = 0
        self._since_s = 0.0
        self._unanswered = 0
        self._unanswered_s = 0.0

    def note(self, load: Load, at: float) -> None:
        """Take a report; what was sent before it is in it."""
        with self._lock:
            if at >= self._at:
                self._load, self._at = load, at
                self._since, self._since_s = 0, 0.0

    @contextmanager
    def sending(self, seconds: float) -> Iterator[None]:
        """Count a request until the end of the block.

        Args:
            seconds: What is expected of all its executions together.
        """
        with self._lock:
            self._since += 1
            self._since_s += seconds
            self._unanswered += 1
            self._unanswered_s += seconds
        try:
            yield
        finally:
            with self._lock:
                self._unanswered -= 1
                self._unanswered_s = max(0.0, self._unanswered_s - seconds) if self._unanswered else 0.0

    def now(self, at: float) -> Load:
        """Return the load as it should be now.

        A report may have been made before a request of ours came that was sent
        before we had it; all that is unanswered is there in any case.
        """
        if self._reading is not None:
            self.note(*self._reading())
        with self._lock:
            load, told = self._load, self._at
            since, since_s, own, own_s = self._since, self._since_s, self._unanswered, self._unanswered_s
        load = aged(load, at - told)
        if not own and not since:
            return load
        places = load.idle + load.busy
        total = max(load.busy + load.waiting + since, own)
        busy = min(total, places)
        return Load(places - busy, busy, total - busy, max(load.backlog_s + since_s, own_s))
