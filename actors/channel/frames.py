"""Length-prefixed msgpack frames over a stream socket, with descriptors beside them.

A frame is a 4-byte little-endian length and a msgpack map. The reader states
the largest frame it takes and reads no byte of a larger one.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import msgpack

from runvisor.policies.errors import ProtocolError

_LENGTH: Final = struct.Struct("<I")
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024
MAX_FDS: Final = 16
"""Descriptors beside one frame."""
_CHUNK: Final = 1 << 20

Message = dict[str, Any]


def encode(message: Mapping[str, Any], *, max_bytes: int = MAX_FRAME_BYTES) -> bytes:
    """Return the frame of a message.

    Raises:
        ProtocolError: The message is not plain data, or larger than ``max_bytes``.

    Example:
        >>> decode(encode({"op": "hello"})[4:])
        {'op': 'hello'}
    """
    try:
        body = msgpack.packb(message)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"not a message: {error}") from None
    assert isinstance(body, bytes)
    if len(body) > max_bytes:
        raise ProtocolError(
            f"a frame of {len(body)} bytes is larger than {max_bytes}", "", "pass large values in parts or as files"
        )
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes | bytearray | memoryview) -> Message:
    """Return the message of a frame's body.

    Raises:
        ProtocolError: The body is not one msgpack map with text keys.
    """
    try:
        message = msgpack.unpackb(body, raw=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"not a frame: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"a frame holds a {type(message).__name__}, not a map")
    return message


class FrameSocket:
    """One end of a framed stream; owns the socket.

    Not for use by two threads at once. `receive` returns None when the peer
    has closed the stream between frames.

    Args:
        sock: A connected stream socket.
        max_bytes: The largest frame accepted and sent.
    """

    def __init__(self, sock: socket.socket, *, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._socket = sock
        self._max_bytes = max_bytes

    @classmethod
    def pair(cls) -> tuple[FrameSocket, FrameSocket]:
        """Return two connected ends."""
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(left), cls(right)

    def fileno(self) -> int:
        """The descriptor, for poll and select."""
        return self._socket.fileno()

    def settimeout(self, timeout_s: float | None) -> None:
        """Bound each later wait; a wait that ends so raises `TimeoutError`."""
        self._socket.settimeout(timeout_s)

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a message, and copies of descriptors with it.

        Raises:
            ProtocolError: The message cannot be framed; nothing was sent.
            OSError: The peer is gone.
        """
        frame = encode(message, max_bytes=self._max_bytes)
        if fds:
            socket.send_fds(self._socket, [frame[:1]], list(fds))
            frame = frame[1:]
        self._socket.sendall(frame)

    def send_some(self, data: memoryview) -> int:
        """Send what goes without waiting, and return how much that was.

        Raises:
            BlockingIOError: Not a byte goes now.
            OSError: The peer is gone.
        """
        return self._socket.send(data, socket.MSG_DONTWAIT)

    def send_descriptors(self, first: memoryview, fds: Sequence[int]) -> None:
        """Send the first byte of a frame with copies of descriptors; the rest is for `send_some`.

        Raises:
            OSError: The peer is gone.
        """
        socket.send_fds(self._socket, [first[:1]], list(fds), socket.MSG_DONTWAIT)

    def receive_some(self, max_bytes: int) -> bytes:
        """Return what lies there, empty at the end of the stream.

        Raises:
            BlockingIOError: Nothing does.
            OSError: The peer is gone.
        """
        return self._socket.recv(max_bytes, socket.MSG_DONTWAIT)

    def receive(self) -> Message | None:
        """Return the next message, or None at the end of the stream."""
        return self.receive_with_fds(0)[0]

    def receive_with_fds(self, max_fds: int = MAX_FDS) -> tuple[Message | None, list[int]]:
        """Return the next message and the descriptors that came with it (the caller owns them).

        Raises:
            ProtocolError: The frame is too large, cut off, or not a message.
        """
        fds: list[int] = []
        try:
            if max_fds:
                first, fds, _, _ = socket.recv_fds(self._socket, _LENGTH.size, max_fds, socket.MSG_CMSG_CLOEXEC)
            else:
                first = self._socket.recv(_LENGTH.size)
            if not first:
                return None, fds
            header = first if len(first) == _LENGTH.size else first + self._exactly(_LENGTH.size - len(first))
            (length,) = _LENGTH.unpack(header)
            if length > self._max_bytes:
                raise ProtocolError(f"the peer announced a frame of {length} bytes; the limit is {self._max_bytes}")
            return decode(self._exactly(length)), fds
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    def _exactly(self, size: int) -> bytes | bytearray:
        first = self._socket.recv(min(size, _CHUNK))
        if len(first) == size:
            return first
        buffer = bytearray(first)
        while len(buffer) < size:
            chunk = self._socket.recv(min(size - len(buffer), _CHUNK))
            if not chunk:
                raise ProtocolError("the stream ended inside a frame")
            buffer += chunk
        return buffer

    def close(self) -> None:
        """Close the socket; closing twice is fine."""
        self._socket.close()

    def __enter__(self) -> FrameSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FrameBuffer:
    """Cuts frames out of bytes as they come, for a reader that must not block.

    Example:
        >>> buffer = FrameBuffer(max_bytes=100)
        >>> frame = encode({"op": "result"})
        >>> buffer.feed(frame[:3]), buffer.feed(frame[3:])
        ([], [{'op': 'result'}])
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    @property
    def is_empty(self) -> bool:
        """Whether no frame has begun that is not whole yet."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes and return the messages that are now whole.

        Raises:
            ProtocolError: A frame is too large or is not a message.
        """
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > self._max_bytes:
                raise ProtocolError(f"the peer announced a frame of {length} bytes; the limit is {self._max_bytes}")
            end = _LENGTH.size + length
            if len(buffer) < end:
                break
            messages.append(decode(bytes(buffer[_LENGTH.size : end])))
            del buffer[:end]
        return messages
