"""How much work a pool has before it: what its clients expect of the executions that wait and run there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.channel.load_page import LoadPage
from runvisor.actors.runtime import Load
from runvisor.policies.trust import Grant
from runvisor.policies.values import is_number

_LEARNED: Final = 0.05
"""How much one execution moves what is believed of the pool's turnaround."""
_MOST_S: Final = 60.0
_HALVES_S: Final = 60.0
"""How long nobody has to have waited for half of what is believed of it to be forgotten: its cause may be gone."""
_SETTLED_S: Final = 0.05


def expected_s(request: Message, grant: Grant) -> float:
    """Return how long a client expects one execution to run, as far as that can be true.

    A hint of somebody who is not believed: what is no number counts nothing, and
    nothing counts more than the grant's own limit.

    Example:
        >>> from runvisor.policies.permissions import Permissions
        >>> from runvisor.policies.trust import Trust
        >>> grant = Grant("p", Trust.UNTRUSTED, Permissions(timeout_s=2.0))
        >>> [expected_s({"expected_s": said}, grant) for said in (0.5, 1e9, -1, float("nan"), "long", None)]
        [0.5, 2.0, 0.0, 0.0, 0.0, 0.0]
    """
    said = request.get("expected_s")
    if said is None or not is_number(said):
        return 0.0
    return min(max(float(said), 0.0), grant.permissions.timeout_s)


class Expectation:
    """What is still expected of one request; made by `Backlog.expecting`."""

    def __init__(self, backlog: Backlog, each_s: float, executions: int) -> None:
        self._backlog = backlog
        self._each_s = each_s
        self.left = executions

    def one_ended(self, service_s: float) -> None:
        """Note that one of its executions has ended.

        Args:
            service_s: How long it ran.
        """
        self.left -= 1
        self._backlog.ended(self._each_s, service_s)


class Backlog:
    """The sum of what is expected, and the pool's load with it. Safe from many threads.

    Args:
        load: The runtime's own.
        clock: Tells time in seconds.

    Example:
        >>> backlog = Backlog(lambda: Load(busy=1))
        >>> with backlog.expecting(0.25, 4) as batch:
        ...     batch.one_ended(0.2)
        ...     backlog.load().backlog_s
        0.75
        >>> backlog.load().backlog_s
        0.0
    """

    def __init__(self, load: Callable[[], Load], clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._lock = threading.Lock()
        self._executions = 0
        self._seconds = 0.0
        self._beyond_s = 0.0
        self._learned_at = 0.0
        self._ended_at = 0.0
        self._shown: ShownLoad | None = None

    @contextmanager
    def expecting(self, each_s: float, executions: int = 1) -> Iterator[Expectation]:
        """Count a request while the block runs.

        Args:
            each_s: What one of its executions is expected to take; see `expected_s`.
            executions: How many it has, one after the other.
        """
        expectation = Expectation(self, each_s, executions)
        self._add(executions, each_s * executions)
        try:
            yield expectation
        finally:
            left = expectation.left
            self._add(-left, -each_s * left)

    def ended(self, each_s: float, service_s: float) -> None:
        """Note that an execution has ended.

        Args:
            each_s: What was expected of it.
            service_s: How long it ran.
        """
        self._add(-1, -each_s)
        load, at = self._load(), self._clock()
        with self._lock:
            before, self._ended_at = self._ended_at, at if load.waiting else 0.0
            if not load.waiting:
                return
            if before:  # no place was left free since the last one ended
                # One difference may be negative: executions do not end in turn, and only their mean is the turnaround.
                beyond_s = (at - before) * (load.idle + load.busy) - service_s
                self._beyond_s += _LEARNED * (beyond_s - self._beyond_s)
            else:
                self._beyond_s *= self._left(at)
            self._learned_at = at

    def show_on(self, page: LoadPage) -> None:
        """Show the load to clients on this node, at once and whenever an execution comes or goes."""
        self._shown = ShownLoad(self.load, page)

    def load(self) -> Load:
        """Return how busy the pool is."""
        load = self._load()
        with self._lock:
            left = 1.0 if load.waiting and self._ended_at else self._left(self._clock())
            beyond_s = min(max(0.0, self._beyond_s * left), _MOST_S)
        backlog_s = self._seconds + self._executions * beyond_s
        return Load(load.idle, load.busy, load.waiting, backlog_s, turnaround_s=beyond_s)

    def close(self) -> None:
        """Show nothing any more; closing twice is fine."""
        if self._shown is not None:
            self._shown.close()

    def _left(self, at: float) -> float:
        """Return the share that is left by then of what was believed when an execution ended while callers waited."""
        return float(0.5 ** (max(0.0, at - self._learned_at) / _HALVES_S))

    def _add(self, executions: int, seconds: float) -> None:
        with self._lock:
            self._executions += executions
            # Sums of floats drift: nothing is expected of nothing.
            self._seconds = max(0.0, self._seconds + seconds) if self._executions else 0.0
        if self._shown is not None and executions:
            self._shown.changed()


class ShownLoad:
    """Keeps a page up to date: at each change, and once more when the change has had its consequences.

    Instances are destroyed and made in the background, a moment after an execution has ended.

    Args:
        load: Returns the load.
        page: Where it is shown.
    """

    def __init__(self, load: Callable[[], Load], page: LoadPage) -> None:
        self._load = load
        self._page = page
        self._lock = threading.Lock()
        self._has_changed = threading.Event()
        self._closing = threading.Event()
        self._show()
        threading.Thread(target=self._follow, name="load-page", daemon=True).start()

    def changed(self) -> None:
        """Show it now, and again in a moment."""
        self._show()
        self._has_changed.set()

    def close(self) -> None:
        """Follow no more; closing twice is fine."""
        self._closing.set()
        self._has_changed.set()

    def _show(self) -> None:
        with self._lock:  # else an older load may be written last
            self._page.write(self._load())

    def _follow(self) -> None:
        while self._has_changed.wait():
            self._has_changed.clear()
            if self._closing.wait(_SETTLED_S):
                return
            self._show()
