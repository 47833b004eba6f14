"""A connected socket, read and written piece by piece within an event loop.

No transport stands between it and the kernel: whoever sends waits until the
far end has room, and whoever waits does not read. So a relay holds one piece
per direction, whatever its two ends do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

PIECE_BYTES: Final = 1 << 16
"""The most that is read at once; also the longest head of a request."""
_RESET: Final = struct.pack("ii", 1, 0)
_LINGER_S: Final = 1.0
_LINGER_BYTES: Final = 1 << 20


class Stream:
    """One end of a relay; owns its socket.

    One task may read while another sends. Reading has the names and errors of
    `asyncio.StreamReader`.

    Args:
        sock: A connected TCP socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._ahead = bytearray()

    @classmethod
    async def to(cls, address: str, port: int) -> Stream:
        """Connect to an address; no name is ever resolved here.

        Raises:
            OSError: It cannot be reached.
        """
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            return cls(sock)
        except BaseException:
            sock.close()
            raise

    async def read(self, n: int = PIECE_BYTES, /) -> bytes:
        """Return up to ``n`` bytes as they come, or none at the end."""
        if self._ahead:
            data = bytes(self._ahead[:n])
            del self._ahead[:n]
            return data
        return await self._loop.sock_recv(self._socket, min(n, PIECE_BYTES))

    async def readuntil(self, separator: bytes = b"\n", /) -> bytes:
        """Return bytes up to and with the separator.

        Raises:
            asyncio.IncompleteReadError: The far end stopped before it.
            asyncio.LimitOverrunError: It is not within `PIECE_BYTES`.
        """
        seen = 0
        while (at := self._ahead.find(separator, seen)) < 0:
            if len(self._ahead) >= PIECE_BYTES:
                raise asyncio.LimitOverrunError("no separator within the limit", len(self._ahead))
            seen = max(0, len(self._ahead) - len(separator) + 1)
            data = await self._loop.sock_recv(self._socket, PIECE_BYTES - len(self._ahead))
            if not data:
                raise asyncio.IncompleteReadError(bytes(self._ahead), None)
            self._ahead += data
        return await self.read(at + len(separator))

    async def readexactly(self, n: int, /) -> bytes:
        """Return ``n`` bytes.

        Raises:
            asyncio.IncompleteReadError: The far end stopped before them.
        """
        data = b""
        while len(data) < n:
            piece = await self.read(n - len(data))
            if not piece:
                raise asyncio.IncompleteReadError(data, n)
            data += piece
        return data

    async def send(self, data: bytes) -> None:
        """Send bytes; waits until the kernel has taken them all.

        Raises:
            OSError: The far end is gone.
        """
        await self._loop.sock_sendall(self._socket, data)

    def finish(self) -> None:
        """Say that no more is sent; the other direction stays open."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def linger(self) -> None:
        """Finish, then read and forget a little: closing over unread bytes would take the answer back."""
        self.finish()
        forgotten = 0
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while forgotten < _LINGER_BYTES and (data := await self.read()):
                    forgotten += len(data)

    def close(self) -> None:
        """Close; the kernel still delivers what was sent. Closing twice is fine."""
        self._socket.close()

    def reset(self) -> None:
        """Close so that the far end sees that it did not end well; harmless when closed."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()
