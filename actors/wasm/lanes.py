"""A lane to an engine process: it serves one caller at a time.

So a request costs one send and one receive in the caller's own thread. Every
byte that comes back is hostile.
"""

from __future__ import annotations

import itertools
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm.agreement import WINDOW_BYTES
from runvisor.actors.wasm.wire import Wire
from runvisor.policies.errors import ProtocolError
from runvisor.policies.permissions import MiB

if TYPE_CHECKING:
    from runvisor.actors.wasm.links import EngineLink

_REPLY_BYTES: Final = 4 * MiB
_LEAST_WAIT_S: Final = 0.001
_TIMEVAL: Final = struct.Struct("@ll")


class EngineGone(Exception):
    """The engine process has ended.

    Args:
        message: What was seen of it.
        was_asked: Whether it may have begun on the request before.
    """

    def __init__(self, message: str, *, was_asked: bool) -> None:
        super().__init__(message)
        self.was_asked = was_asked


class Unanswered(Exception):
    """A request took longer than it may; the engine no longer keeps its own deadlines."""


class Lane:
    """One socket to the engine, lent to one execution at a time: a context manager that gives itself back."""

    def __init__(self, link: EngineLink, ours: socket.socket, window_fd: int, number: int = 0) -> None:
        self._link = link
        self._number = number
        self._window_fd = window_fd
        self._window: mmap.mmap | None = None
        self._wire = Wire(ours)
        self._ids = itertools.count()
        self._wait_s = 0.0
        self._is_asking = False
        self.memory_bytes = 0

    def __enter__(self) -> Lane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, EngineGone | ProtocolError):
            self._link.note_end()
        self._link.take_back(self, is_usable=not self._is_asking)

    def ask(
        self,
        request: Message,
        timeout_s: float,
        reply_bytes: int = _REPLY_BYTES,
        *,
        hear: Callable[[Message], None] | None = None,
        cancellation: Cancellation | None = None,
    ) -> Message:
        """Send a request and return its reply.

        Args:
            request: Gets its ``id`` here.
            timeout_s: How long the engine may take.
            reply_bytes: The largest reply that makes sense.
            hear: Takes what the engine says before it answers; None is nothing. What it raises ends the asking.
            cancellation: Has the engine call the request off.

        Raises:
            EngineGone: The engine has ended.
            ProtocolError: It answered what is no reply; it is not to be asked again.
            Unanswered: It took too long.
        """
        number = request["id"] = next(self._ids)
        until = time.monotonic() + timeout_s
        if cancellation is not None:
            cancellation.act(partial(self._link.call_off, self._number, number))
        try:
            reply = self._exchange(request, timeout_s, until, reply_bytes, hear)
        finally:
            if cancellation is not None:
                cancellation.act(None)
        if reply.get("id") != number or not self._wire.is_empty:
            raise ProtocolError("the engine answered what was not asked")
        self._is_asking = False
        return reply

    def _exchange(
        self,
        request: Message,
        timeout_s: float,
        until: float,
        reply_bytes: int,
        hear: Callable[[Message], None] | None,
    ) -> Message:
        if timeout_s != self._wait_s:
            self._wait_at_most(timeout_s)
        self._is_asking = True
        was_asked = False
        try:
            self._wire.send(request, until)
            was_asked = True
            reply = self._wire.receive(until, reply_bytes, self._link.is_calm, may_go_on=hear is not None)
        except BlockingIOError:
            raise Unanswered from None
        except OSError as error:
            raise EngineGone(str(error), was_asked=was_asked) from None
        while hear is not None and reply is not None and "event" in reply:
            hear(reply)
            self._wait_at_most(max(_LEAST_WAIT_S, until - time.monotonic()))
            try:
                reply = self._wire.receive(until, reply_bytes, may_go_on=True)
            except BlockingIOError:
                raise Unanswered from None
            except OSError as error:
                raise EngineGone(str(error), was_asked=True) from None
        if reply is None:
            raise EngineGone("the engine closed the lane", was_asked=True)
        return reply

    def window(self) -> mmap.mmap:
        """Return the memory that records go through to the engine, and what it collects back; hostile when read."""
        if self._window is None:
            self._window = mmap.mmap(self._window_fd, WINDOW_BYTES)
        return self._window

    def close(self) -> None:
        """Close it; the engine's thread behind it ends with its present run."""
        self._wire.close()
        os.close(self._window_fd)
        if self._window is not None:
            self._window.close()
            self._window = None

    def _wait_at_most(self, seconds: float) -> None:
        """Bound later waits by the kernel (SO_RCVTIMEO), one system call only when the bound changes."""
        if seconds != self._wait_s:
            whole = int(seconds)
            bound = _TIMEVAL.pack(whole, int((seconds - whole) * 1e6) + 1)
            self._wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
            self._wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
            self._wait_s = seconds
