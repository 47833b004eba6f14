"""Noticing that the peer of a connection has gone, without reading from it."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from runvisor.actors.cancellation import Cancellation

_GONE = select.EPOLLRDHUP | select.EPOLLONESHOT


class Hangups:
    """Cancels what runs for a connection when its peer closes it.

    One thread waits for all connections in epoll(7); a connection is in its set
    only while something runs for it.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._watched: dict[int, Cancellation] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="hangups", daemon=True)
        self._thread.start()

    @contextmanager
    def cancel_when_gone(self, fd: int, cancellation: Cancellation) -> Iterator[None]:
        """Watch a connection while the block runs.

        Args:
            fd: The connection; watched by one block at a time.
            cancellation: Set when the peer closes its end, wholly or for writing.
        """
        with self._lock:
            self._watched[fd] = cancellation
            self._epoll.register(fd, _GONE)
        try:
            yield
        finally:
            with self._lock:
                self._watched.pop(fd, None)
                with contextlib.suppress(OSError, ValueError):  # closed under us: it is out of the set already
                    self._epoll.unregister(fd)

    def close(self) -> None:
        """End the thread; closing twice is fine."""
        if not self._epoll.closed:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._epoll.close()
            os.close(self._wake)

    def _run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd == self._wake:
                    return
                with self._lock:
                    cancellation = self._watched.get(fd)
                    if cancellation is not None and _is_gone(fd):  # the number may be another connection's by now
                        cancellation.cancel()


def _is_gone(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))
