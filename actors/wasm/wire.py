"""Frames between the host and an engine, for one request at a time: one system call each way when they are small.

The same format as `runvisor.actors.channel.frames`; this reader takes nothing
past the frame that it waits for, unless it was told that more may follow.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgpack

from runvisor.actors.channel.frames import Message, decode
from runvisor.policies.errors import ProtocolError
from runvisor.policies.permissions import KiB, MiB

_LENGTH: Final = struct.Struct("<I")
AWAKE_S: Final = 60e-6
"""How long an end that expects the next frame at once polls for it before it sleeps."""
_SMALL: Final = 4 * KiB
_CHUNK: Final = 1 * MiB
_NEVER: Final = float("inf")


class Wire:
    """One end of a stream on which requests and replies alternate; owns the socket.

    Args:
        sock: A connected stream socket; its own timeouts are the caller's business.
        max_bytes: The largest frame sent and accepted.

    Example:
        >>> ours, theirs = map(Wire, socket.socketpair())
        >>> ours.send({"op": "hello"}), theirs.receive()
        (None, {'op': 'hello'})
        >>> ours.close(), theirs.receive(), theirs.close()
        (None, None, None)
    """

    def __init__(self, sock: socket.socket, *, max_bytes: int = 256 * MiB) -> None:
        self.socket = sock
        self._max_bytes = max_bytes
        self._rest = b""
        self._pack = msgpack.Packer().pack  # one for all frames: making it costs more than small frames do

    def send(self, message: Mapping[str, Any], until: float = _NEVER) -> None:
        """Send a message.

        Args:
            message: Plain data.
            until: When to give up, by the monotonic clock, although the peer still takes bytes.

        Raises:
            ProtocolError: It is no plain data, or too large; nothing was sent.
            BlockingIOError: The socket's timeout, or ``until``, has passed.
            OSError: The peer is gone.
        """
        try:
            body: bytes = self._pack(message)
        except (TypeError, ValueError, OverflowError) as error:
            self._pack = msgpack.Packer().pack  # the old one holds half a message
            raise ProtocolError(f"not a message: {error}") from None
        if len(body) > self._max_bytes:
            raise ProtocolError(f"a frame of {len(body)} bytes is larger than {self._max_bytes}")
        frame = _LENGTH.pack(len(body)) + body
        sent = self.socket.send(frame)
        while sent < len(frame):
            _check(until)
            sent += self.socket.send(memoryview(frame)[sent:])

    def receive(
        self,
        until: float = _NEVER,
        max_bytes: int | None = None,
        stay_awake_while: Callable[[], bool] | None = None,
        *,
        may_go_on: bool = False,
    ) -> Message | None:
        """Return the next message, or None at the end of the stream.

        Args:
            until: When to give up, by the monotonic clock, although bytes still come.
            max_bytes: The largest frame accepted; None is the wire's own limit.
            stay_awake_while: Poll for a moment (`AWAKE_S`) before sleeping, for as long
                as this holds.
            may_go_on: The peer may send more frames at once; they are kept for the next call.

        Raises:
            ProtocolError: The frame is too large, cut off, followed by more unasked, or not a message.
            BlockingIOError: The socket's timeout, or ``until``, has passed.
            OSError: The peer is gone.
        """
        data, self._rest = self._rest or self._first(stay_awake_while), b""
        if not data:
            return None
        while len(data) < _LENGTH.size:
            data += self._more(_LENGTH.size - len(data), until)
        (length,) = _LENGTH.unpack_from(data)
        if length > (self._max_bytes if max_bytes is None else max_bytes):
            raise ProtocolError(f"the peer announced a frame of {length} bytes, more than it may")
        missing = _LENGTH.size + length - len(data)
        if missing < 0:
            if not may_go_on:
                raise ProtocolError("the peer spoke before it was asked")
            data, self._rest = data[:missing], data[missing:]
        if missing > 0:
            buffer = bytearray(data)
            while missing > 0:
                chunk = self._more(missing, until)
                buffer += chunk
                missing -= len(chunk)
            return decode(memoryview(buffer)[_LENGTH.size :])
        return decode(memoryview(data)[_LENGTH.size :])

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come beyond what `receive` returned."""
        return not self._rest

    def _first(self, stay_awake_while: Callable[[], bool] | None) -> bytes:
        """Wait for the first bytes of a frame.

        Both ends sleeping in turn costs two wake-ups for each request, and on a
        virtual machine a core that has nothing to do is given away meanwhile: 240 us
        instead of 57 for a trivial run. Each poll gives the core to whoever wants it.
        """
        if stay_awake_while is not None:
            asleep_at = time.monotonic() + AWAKE_S
            while stay_awake_while():
                try:
                    return self.socket.recv(_SMALL, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    if time.monotonic() >= asleep_at:
                        break
                    os.sched_yield()
        return self.socket.recv(_SMALL)

    def _more(self, size: int, until: float) -> bytes:
        _check(until)
        chunk = self.socket.recv(min(size, _CHUNK))
        if not chunk:
            raise ProtocolError("the stream ended inside a frame")
        return chunk

    def close(self) -> None:
        """Close the socket; closing twice is fine."""
        self.socket.close()


def _check(until: float) -> None:
    if time.monotonic() >= until:
        raise BlockingIOError
