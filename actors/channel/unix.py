"""The same-node channel: frames over a unix socket in a folder that only this user enters.

"Same node" means that the connection and the nonce succeeded, nothing else.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.base import EVENTS, Answers, OnEvent
from runvisor.actors.channel.frames import MAX_FDS, MAX_FRAME_BYTES, FrameSocket, Message, encode
from runvisor.actors.channel.hangups import Hangups
from runvisor.policies.errors import ProtocolError, WorkerCrashed

Handler = Callable[[Message, Answers, Sequence[int]], None]
"""Called with a request, its answers, and the descriptors that came with it (closed when it returns)."""
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
_BACKLOG: Final = 128
_CONNECT_TIMEOUT_S: Final = 2.0
_STALLED_S: Final = 600.0


class UnixServer:
    """Serves a handler on a unix socket, one thread per connection.

    Peers of another user (root aside) are turned away before a byte is read.

    Args:
        handler: Called with each request and with what answers it.
        nonce: Sent to each client first, so that it knows whom it reached.
        max_frame_bytes: The largest request that is read.
        stalled_s: A client that takes not a byte of its answer for so long is gone.
    """

    def __init__(
        self,
        handler: Handler,
        nonce: str,
        *,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        stalled_s: float = _STALLED_S,
    ) -> None:
        self._handler = handler
        self._nonce = nonce
        self._max_frame_bytes = max_frame_bytes
        self._stalled_s = stalled_s
        self._folder = Path(tempfile.mkdtemp(prefix="runvisor-"))  # mkdtemp makes it 0700
        self.path = self._folder / "pool.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(_BACKLOG)
        self._connections: set[socket.socket] = set()
        self._closed = False
        self._lock = threading.Lock()
        self._hangups = Hangups()
        threading.Thread(target=self._accept, name="unix-server", daemon=True).start()

    def close(self) -> None:
        """Stop listening, close every connection, remove the folder; closing twice is fine."""
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        for sock in (self._listener, *connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._hangups.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="unix-client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        channel = FrameSocket(connection, max_bytes=self._max_frame_bytes)
        answers = UnixAnswers(connection, self._hangups, self._stalled_s)
        try:
            if peer_uid(connection) not in (0, os.geteuid()):
                return
            channel.send({"op": "hello", "nonce": self._nonce})
            while True:
                request, shared = channel.receive_with_fds(MAX_FDS)
                try:
                    if request is None:
                        return
                    self._handler(request, answers, shared)
                finally:
                    for fd in shared:
                        os.close(fd)
        except ProtocolError as error:
            with contextlib.suppress(OSError, ProtocolError):
                channel.send({"op": "error", "error": error.to_wire()})
        except OSError:
            pass  # the client went away, and what it started was called off
        finally:
            with self._lock:
                self._connections.discard(connection)
            channel.close()


class UnixAnswers:
    """The pool's end of a connection's requests. See `Answers`.

    Args:
        connection: The connection.
        hangups: Notices when its client goes.
        stalled_s: How long the client may take nothing.
    """

    def __init__(self, connection: socket.socket, hangups: Hangups, stalled_s: float = _STALLED_S) -> None:
        self._connection = connection
        self._hangups = hangups
        self._stalled_s = stalled_s
        self._unsent = memoryview(b"")

    def send(self, message: Message) -> None:
        """See `Answers.send`."""
        frame = encode(message)
        while not self._flush():
            self._wait()
        self._unsent = memoryview(frame)
        while not self._flush():
            self._wait()

    def offer(self, make: Callable[[], Message]) -> bool:
        """See `Answers.offer`; a frame that goes in part goes on with the next."""
        if not self._flush():
            return False
        self._unsent = memoryview(encode(make()))
        self._flush()
        return True

    def cancel_when_gone(self, cancellation: Cancellation) -> AbstractContextManager[None]:
        """See `Answers.cancel_when_gone`."""
        return self._hangups.cancel_when_gone(self._connection.fileno(), cancellation)

    def _flush(self) -> bool:
        while self._unsent:
            try:
                sent = self._connection.send(self._unsent, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            self._unsent = self._unsent[sent:]
        return True

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._connection, select.POLLOUT)
        if not poll.poll(self._stalled_s * 1000):
            raise TimeoutError("the client takes no answer")


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

    def request(self, message: Message, on_event: OnEvent | None = None, shared: Sequence[int] = ()) -> Message:
        """See `Channel.request`; hanging up is how the pool learns that a caller has gone."""
        started = False
        connection = self._send(message, shared)
        answer: Message | None = None
        try:
            while (answer := _next(connection)) is not None and answer.get("op") in EVENTS:
                started = True
                if on_event is not None:
                    on_event(answer)
        finally:
            if answer is None or answer.get("op") in EVENTS:
                connection.close()
            else:
                self._give_back(connection)
        if answer is None:
            raise self._gone(started)
        return answer

    def close(self) -> None:
        """Close every free connection; closing twice is fine."""
        self._closed = True
        while self._free:
            self._free.pop().close()

    def _send(self, message: Message, shared: Sequence[int]) -> FrameSocket:
        """Send a request on a free connection, and return that."""
        connection: FrameSocket | None = None
        try:
            connection = self._free.pop() if self._free else self._connect()
            connection.send(message, shared)
        except BaseException as error:
            if connection is not None:
                connection.close()
            if isinstance(error, OSError):
                raise self._gone(started=False) from None
            raise
        return connection

    def _gone(self, started: bool) -> WorkerCrashed:
        return WorkerCrashed("the pool went away during a request", self._path, "", {"started": started})

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


def _next(connection: FrameSocket) -> Message | None:
    """Return the next answer, or None if the pool is gone."""
    try:
        return connection.receive()
    except OSError:
        return None
