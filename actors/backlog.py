"""How much work a pool has before it: what its clients expect of the executions that wait and run there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from runvisor.actors.channel.frames import Message
from runvisor.actors.channel.load_page import LoadPage
from runvisor.actors.runtime import Load
from runvisor.policies.trust import Grant
from runvisor.policies.values import is_number


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

    def one_ended(self) -> None:
        """Note that one of its executions has ended."""
        self.left -= 1
        self._backlog.add(-self._each_s)


class Backlog:
    """The sum of what is expected, and the pool's load with it. Safe from many threads.

    Args:
        load: The runtime's own.

    Example:
        >>> backlog = Backlog(lambda: Load(busy=1))
        >>> with backlog.expecting(0.25, 4) as batch:
        ...     batch.one_ended()
        ...     backlog.load().backlog_s
        0.75
        >>> backlog.load().backlog_s
        0.0
    """

    def __init__(self, load: Callable[[], Load]) -> None:
        self._load = load
        self._page: LoadPage | None = None
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._requests = 0
        self._seconds = 0.0

    @contextmanager
    def expecting(self, each_s: float, executions: int = 1) -> Iterator[Expectation]:
        """Count a request while the block runs.

        Args:
            each_s: What one of its executions is expected to take; see `expected_s`.
            executions: How many it has, one after the other.
        """
        expectation = Expectation(self, each_s, executions)
        self.add(each_s * executions, requests=1)
        self._tell()
        try:
            yield expectation
        finally:
            self.add(-each_s * expectation.left, requests=-1)
            self._tell()

    def add(self, seconds: float, *, requests: int = 0) -> None:
        """Count seconds, and requests, more or fewer."""
        with self._lock:
            self._requests += requests
            # Sums of floats drift: nothing is expected of nothing.
            self._seconds = max(0.0, self._seconds + seconds) if self._requests else 0.0

    def show_on(self, page: LoadPage) -> None:
        """Show the load to clients on this node, at once and whenever a request comes or goes."""
        self._page = page
        self._tell()

    def load(self) -> Load:
        """Return how busy the pool is."""
        return replace(self._load(), backlog_s=self._seconds)

    def _tell(self) -> None:
        if self._page is not None:
            with self._telling:  # else an older load may be written last
                self._page.write(self.load())
