"""Servers, a guest's network and a broker, all on loopback: what the tests of the egress play with.

Every name that a test may not reach leads to the canary as well: an attack that
got out would be seen there, and nowhere else.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from runvisor.actors.jail import kernel
from runvisor.actors.jail.egress import inside
from runvisor.actors.jail.egress.egress import Egress, EgressBroker, EgressUsage, OnRecord
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.egress.records import EgressLimits, EgressRecord

PATIENCE_S = 10.0
Handler = Callable[[socket.socket, "Upstream"], None]


class Upstream:
    """A TCP server on 127.0.0.1 that keeps all it was sent.

    Args:
        handler: Serves one connection.
        context: TLS, if it speaks TLS.
    """

    def __init__(self, handler: Handler, context: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self.received: list[bytes] = []
        self._active = 0
        self._idle = threading.Condition()
        self._own: set[tuple[str, int]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            with self._idle:
                if peer in self._own:
                    self._own.remove(peer)
                    self._idle.notify_all()
                    sock.close()
                    continue
                self.connections += 1
                self._active += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        with contextlib.suppress(OSError):
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            self._handler(sock, self)
        sock.close()
        with self._idle:
            self._active -= 1
            self._idle.notify_all()

    def wait(self) -> bytes:
        """Wait until a connection, and every other one, has been served; return what the last one sent."""
        with self._idle:
            assert self._idle.wait_for(lambda: self._active == 0 and self.received, PATIENCE_S)
        return self.received.pop()

    def settle(self) -> None:
        """Wait until every connection has been counted and served, and forget what was sent."""
        with socket.socket() as last:  # those before it in the queue are accepted before it
            last.bind(("127.0.0.1", 0))
            self._own.add(last.getsockname())
            last.connect(self._listener.getsockname())
            with self._idle:
                assert self._idle.wait_for(lambda: not self._own and self._active == 0, PATIENCE_S)
        self.received.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def until_end(sock: socket.socket) -> bytes:
    """Read to the end, or to what a reset leaves."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


def web(sock: socket.socket, upstream: Upstream) -> None:
    """Answer one request, whatever it is, and then see what else comes."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(65536)
        if not piece:
            return
        head += piece
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
    if not isinstance(sock, ssl.SSLSocket):
        sock.shutdown(socket.SHUT_WR)
        head += until_end(sock)
    upstream.received.append(head)


def whole_body(sock: socket.socket, upstream: Upstream) -> None:
    """Read a request to the end of its body, which is a last chunk or ``END``, before answering it."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while not data.endswith(b"\r\n0\r\n\r\n" if b"chunked" in data else b"END"):
            piece = sock.recv(65536)
            if not piece:
                break
            data += piece
    upstream.received.append(data)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def echo(sock: socket.socket, upstream: Upstream) -> None:
    """Speak first, as mail servers do; send everything back once all of it has come."""
    sock.sendall(b"220 ready\r\n")
    data = until_end(sock)
    upstream.received.append(data)
    sock.sendall(data)


def flood(sock: socket.socket, upstream: Upstream) -> None:
    """Send until nothing more is taken."""
    sock.setblocking(False)
    sent, piece = 0, b"x" * 65536
    while select.select([], [sock], [], 0.5)[1]:
        sent += sock.send(piece)
    upstream.received.append(b"%d" % sent)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return a certificate, its own authority, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = "subjectAltName=DNS:allowed.test,DNS:*.wild.test,DNS:other.test,IP:127.0.0.9"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=allowed.test", "-addext", names],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@dataclass
class World:
    """The outside."""

    certificate: Path
    web: Upstream
    tls: Upstream
    body: Upstream
    echo: Upstream
    flood: Upstream
    canary: Upstream
    broker: EgressBroker

    @contextlib.contextmanager
    def guest(
        self, *patterns: str, limits: EgressLimits | None = None, on_record: OnRecord | None = None
    ) -> Iterator[Guest]:
        """Give a thread a network namespace of its own and open its network."""
        plan = NetworkPlan.of(patterns)
        with ThreadPoolExecutor(1) as thread:
            thread.submit(kernel.unshare, kernel.CLONE_NEWNET).result()
            listeners = [sock.detach() for sock in thread.submit(inside.prepare, plan).result()]
            records: list[EgressRecord] = []
            with self.broker.open(plan, listeners, on_record=on_record or records.append, limits=limits) as egress:
                guest = Guest(plan, thread, egress, records)
                try:
                    yield guest
                finally:
                    guest.finish()
                    for upstream in (self.web, self.tls, self.body, self.echo, self.flood, self.canary):
                        upstream.settle()


@dataclass
class Guest:
    """The inside."""

    plan: NetworkPlan
    thread: ThreadPoolExecutor
    egress: Egress
    records: list[EgressRecord]
    sockets: list[socket.socket] = field(default_factory=list)

    def connect(self, address: str, port: int) -> socket.socket:
        sock = self.thread.submit(socket.create_connection, (address, port), PATIENCE_S).result()
        self.sockets.append(sock)
        return sock

    def by_name(self, host: str, port: int) -> socket.socket:
        """Connect as a client that knows nothing of proxies does."""
        (address,) = {route.address for route in self.plan.routes if (route.host, route.port) == (host, port)}
        return self.connect(address, port)

    def proxy(self) -> socket.socket:
        return self.connect("127.0.0.1", self.plan.proxy_port)

    def ask(self, request: bytes, *, sock: socket.socket | None = None) -> bytes:
        """Send bytes and return all that comes back."""
        sock = sock or self.proxy()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(request)
        return until_end(sock)

    def tunnel(self, place: str) -> tuple[bytes, socket.socket]:
        """Ask the proxy for a tunnel; return the first line of its answer."""
        sock = self.proxy()
        sock.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := sock.recv(1)):
            answer += piece
        return answer.partition(b"\r\n")[0], sock

    def finish(self) -> EgressUsage:
        """End the execution; from then on all records are there."""
        for sock in self.sockets:
            sock.close()
        return self.egress.close()

    def said(self, step: str) -> list[EgressRecord]:
        self.finish()
        return [record for record in self.records if record.step == step]
