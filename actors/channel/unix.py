"""The same-node channel: frames over a unix socket in a folder that only this user enters.

"Same node" means that the connection and the nonce succeeded, nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from runvisor.actors.channel.frames import MAX_FRAME_BYTES, FrameSocket, Message
from runvisor.policies.errors import ProtocolError, WorkerCrashed

Handler = Callable[[Message, Callable[[Message], None]], None]
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
_BACKLOG: Final = 128
_CONNECT_TIMEOUT_S: Final = 2.0


class UnixServer:
    """Serves a handler on a unix socket, one thread per connection.

    Peers of another user (root aside) are turned away before a byte is read.

    Args:
        handler: Called with each request and a function that sends answers.
        nonce: Sent to each client first, so that it knows whom it reached.
        max_frame_bytes: The largest request that is read.
    """

    def __init__(self, handler: Handler, nonce: str, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._handler = handler
        self._nonce = nonce
        self._max_frame_bytes = max_frame_bytes
        self._folder = Path(tempfile.mkdtemp(prefix="runvisor-"))  # mkdtemp makes it 0700
        self.path = self._folder / "pool.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(_BACKLOG)
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="unix-server", daemon=True).start()

    def close(self) -> None:
        """Stop listening, close every connection, remove the folder; closing twice is fine."""
        for sock in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="unix-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        channel = FrameSocket(connection, max_bytes=self._max_frame_bytes)
        try:
            if peer_uid(connection) not in (0, os.geteuid()):
                return
            channel.send({"op": "hello", "nonce": self._nonce})
            while (request := channel.receive()) is not None:
                self._handler(request, channel.send)
        except ProtocolError as error:
            with contextlib.suppress(OSError, ProtocolError):
                channel.send({"op": "error", "error": error.to_wire()})
        except OSError:
            pass  # the client went away; what it started has its own deadline
        finally:
            with self._lock:
                self._connections.discard(connection)
            channel.close()


def peer_uid(connection: socket.socket) -> int:
    """Return the user id of the process at the other end (SO_PEERCRED of unix(7))."""
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


class UnixChannel:
    """The client's end: a free connection per concurrent request, kept for the next one.

    Args:
        path: The server's socket.
        nonce: What the server must say of itself.

    Raises:
        OSError: No server there, or another one: not the same node.
    """

    def __init__(self, path: str, nonce: str) -> None:
        self._path = path
        self._nonce = nonce
        self._free: list[FrameSocket] = [self._connect()]
        self._closed = False

    def request(self, message: Message, on_started: Callable[[], None] | None = None) -> Message:
        """Send a request and return its last answer. Safe from many threads.

        Args:
            message: The request.
            on_started: Called when the pool says that the task has begun.

        Raises:
            WorkerCrashed: The pool died; ``details['started']`` says whether the task had begun.
            ProtocolError: The request is too large, or the answer is none.
        """
        started = False
        connection: FrameSocket | None = None
        try:
            connection = self._free.pop() if self._free else self._connect()
            connection.send(message)
            while (answer := connection.receive()) is not None:
                if answer.get("op") != "started":
                    self._give_back(connection)
                    return answer
                started = True
                if on_started is not None:
                    on_started()
        except ProtocolError:
            if connection is not None:
                connection.close()
            raise
        except OSError:
            pass
        if connection is not None:
            connection.close()
        raise WorkerCrashed("the pool went away during a request", self._path, "", {"started": started})

    def close(self) -> None:
        """Close every free connection; closing twice is fine."""
        self._closed = True
        while self._free:
            self._free.pop().close()

    def _give_back(self, connection: FrameSocket) -> None:
        if self._closed:
            connection.close()
        else:
            self._free.append(connection)

    def _connect(self) -> FrameSocket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel = FrameSocket(sock)
        try:
            sock.settimeout(_CONNECT_TIMEOUT_S)
            sock.connect(self._path)
            hello = channel.receive()
            if hello is None or hello.get("nonce") != self._nonce:
                raise ConnectionRefusedError("another pool answers there")
            sock.settimeout(None)
        except (OSError, ProtocolError) as error:
            channel.close()
            raise error if isinstance(error, OSError) else ConnectionRefusedError(str(error)) from None
        return channel
