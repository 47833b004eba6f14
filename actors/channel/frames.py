"""Length-prefixed msgpack frames over a stream socket, with descriptors beside them.

A frame is a 4-byte little-endian length and a msgpack map. The reader states
the largest frame it takes and reads no byte of a larger one.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import msgpack

from runvisor.policies.errors import ProtocolError

_LENGTH: Final = struct.Struct("<I")
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024
MAX_FDS: Final = 16
"""Descriptors beside one frame."""
_CHUNK: Final = 1 << 20
_MAX_REPORT_PARTS: Final = 4096
_FD_BYTES: Final = array("i").itemsize

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


def decode_report(body: bytes | bytearray | memoryview) -> Message:
    """Return the message of a frame from a hostile process: a map of a few plain entries.

    Nothing that the reader does not need is built: a byte of nested msgpack can cost seventy.

    Raises:
        ProtocolError: It is something else.
    """
    left = _MAX_REPORT_PARTS

    def count(part: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ProtocolError("a report of many parts")
        return part

    try:
        message = msgpack.unpackb(
            body,
            raw=False,
            max_array_len=_MAX_REPORT_PARTS,
            max_map_len=_MAX_REPORT_PARTS,
            max_ext_len=0,
            list_hook=count,
            object_hook=count,
        )
    except ProtocolError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"not a report: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"a report is a {type(message).__name__}, not a map")
    return message


class FrameTooLarge(ProtocolError):
    """The peer announced more than the reader takes."""


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
            self._socket.sendmsg([frame[:1]], [_rights(fds)])
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
            BlockingIOError: Not a byte goes now.
            OSError: The peer is gone.
        """
        # Not socket.send_fds: it takes flags and drops them.
        self._socket.sendmsg([first[:1]], [_rights(fds)], socket.MSG_DONTWAIT)

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

    def receive_with_fds(
        self, max_fds: int = MAX_FDS, *, deadline: float | None = None
    ) -> tuple[Message | None, list[int]]:
        """Return the next message and the descriptors that came with it (the caller owns them).

        Args:
            max_fds: As many of them are taken.
            deadline: By `time.monotonic`: when all of it must be there, however it drips. What `settimeout`
                has set is changed. None bounds each wait as that says.

        Raises:
            ProtocolError: The frame is too large, cut off, or not a message.
            TimeoutError: It is not there in time.
        """
        fds: list[int] = []
        try:
            self._bound(deadline)
            if max_fds:
                first, fds = self._receive_rights(max_fds)
            else:
                first = self._socket.recv(_LENGTH.size)
            if not first:
                return None, fds
            header = first if len(first) == _LENGTH.size else first + self._exactly(_LENGTH.size - len(first), deadline)
            (length,) = _LENGTH.unpack(header)
            if length > self._max_bytes:
                raise FrameTooLarge(f"the peer announced a frame of {length} bytes; the limit is {self._max_bytes}")
            return decode(self._exactly(length, deadline)), fds
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    def _receive_rights(self, max_fds: int) -> tuple[bytes, list[int]]:
        # Not socket.recv_fds: it takes flags and drops them.
        room = socket.CMSG_LEN(max_fds * _FD_BYTES)
        first, messages, _, _ = self._socket.recvmsg(_LENGTH.size, room, socket.MSG_CMSG_CLOEXEC)
        fds = array("i")
        for level, kind, data in messages:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
        return first, list(fds)

    def _bound(self, deadline: float | None) -> None:
        """Let the next wait end at a deadline, if there is one."""
        if deadline is None:
            return
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the message is not whole in time")
        self._socket.settimeout(left_s)

    def _exactly(self, size: int, deadline: float | None) -> bytes | bytearray:
        self._bound(deadline)
        first = self._socket.recv(min(size, _CHUNK))
        if len(first) == size:
            return first
        buffer = bytearray(first)
        while len(buffer) < size:
            self._bound(deadline)
            chunk = self._socket.recv(min(size - len(buffer), _CHUNK))
            if not chunk:
                raise ProtocolError("the stream ended inside a frame")
            buffer += chunk
        return buffer

    def shutdown(self) -> None:
        """End the stream in both directions, also for a thread that waits for it.

        Raises:
            OSError: The peer is gone already.
        """
        self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; closing twice is fine."""
        self._socket.close()

    def __enter__(self) -> FrameSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _rights(fds: Sequence[int]) -> tuple[int, int, array[int]]:
    """Return the control message that copies descriptors (unix(7))."""
    return (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))


class FrameBuffer:
    """Cuts frames out of bytes as they come, for a reader that must not block.

    What is whole comes first: an error in what follows is raised by the next `feed`.

    Args:
        max_bytes: The largest frame.
        decode: Reads a frame's body.

    Example:
        >>> buffer = FrameBuffer(max_bytes=100)
        >>> frame = encode({"op": "result"})
        >>> buffer.feed(frame[:3]), buffer.feed(frame[3:])
        ([], [{'op': 'result'}])
    """

    def __init__(self, *, max_bytes: int, decode: Callable[[memoryview], Message] = decode) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes
        self._decode = decode
        self._error: ProtocolError | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no frame has begun that is not whole yet."""
        return not self._buffer and self._error is None

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes and return the messages that are now whole.

        Raises:
            FrameTooLarge: A frame is.
            ProtocolError: One is not a message.
        """
        if self._error is not None:
            raise self._error
        self._buffer += data
        messages: list[Message] = []
        try:
            while (message := self._next()) is not None:
                messages.append(message)
        except ProtocolError as error:
            self._error = error
            if not messages:
                raise
        return messages

    def _next(self) -> Message | None:
        buffer = self._buffer
        if len(buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(buffer)
        if length > self._max_bytes:
            raise FrameTooLarge(f"the peer announced a frame of {length} bytes; the limit is {self._max_bytes}")
        end = _LENGTH.size + length
        if len(buffer) < end:
            return None
        if len(buffer) == end:
            self._buffer = bytearray()  # not resized: a view of it is about to be read
        else:
            self._buffer, buffer = buffer[end:], buffer[:end]
        return self._decode(memoryview(buffer)[_LENGTH.size :])
