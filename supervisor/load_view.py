"""How busy a pool is, as one handle sees it between two of the pool's answers.

What a pool says of its load is old the moment it is read, and many callers of
one handle decide in that moment. So what the handle has sent since counts on
top of it: a burst does not follow one stale word. On the pool's own node the
word is read from memory and is never old.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from runvisor.actors.runtime import Load

_FRESH_S: Final = 0.05
_FORGOTTEN_S: Final = 1.0
"""After so long a word counts no more beside what is known to be there."""

Reading = Callable[[], tuple[Load, float]]
"""Returns the load that a pool shows just now, and since when by the monotonic clock."""


class LoadView:
    """One pool's load as one handle sees it. Safe from many threads.

    Args:
        load: What the supervisor said of it.
        at: When, by the monotonic clock.
        reading: What shows its load at any time, if it is on this node.

    Example:
        >>> view = LoadView(Load(idle=2), at=0.0)
        >>> with view.sending(0.5), view.sending(0.5), view.sending(0.5):
        ...     load = view.now(0.0)
        >>> load.idle, load.busy, load.waiting, load.backlog_s
        (0, 2, 1, 1.5)
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
        """Take the pool's word; what was sent before is in it, or on its way."""
        with self._lock:
            if at > self._at:
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
        """Return the load as it should be now, with what each execution takes beyond its running in the backlog.

        A word may have been said before a request of ours came that was sent
        before we had it; so at least all that is unanswered is there.

        Args:
            at: By the monotonic clock.

        Returns:
            The load; its ``at`` is 0 unless it is an old word and nothing more is known.
        """
        if self._reading is not None:
            self.note(*self._reading())
        with self._lock:
            load, age_s = self._load, at - self._at
            since, since_s, own, own_s = self._since, self._since_s, self._unanswered, self._unanswered_s
        if self._reading is None and age_s > _FRESH_S:
            if not own:
                return replace(load, at=time.time() - age_s)
            if age_s > _FORGOTTEN_S:
                load = replace(load, idle=load.idle + load.busy, busy=0, waiting=0, backlog_s=0.0)
        total = max(load.busy + load.waiting + since, own)
        if total == load.busy + load.waiting:
            return load
        places = load.idle + load.busy
        busy = min(total, places)
        sent_s = since_s + since * load.turnaround_s
        backlog_s = max(load.backlog_s + sent_s, own_s + own * load.turnaround_s)
        return Load(places - busy, busy, total - busy, backlog_s, turnaround_s=load.turnaround_s)
