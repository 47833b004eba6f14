"""Inside a jail of its own: makes the HTTP requests of one wasm run.

The engine that the run is in has no socket at all; it writes to this process
what its guest asks for, one question at a time, and reads the answer. Out of here
only the broker's listeners can be reached (`runvisor.actors.jail.egress`), so what
leaves is what the grant names, whatever either of the two processes has become.

- ``open`` (request, body, left_s) -> ``handle``, or ``refused`` or ``failed`` with the reason
- ``head`` (handle) -> ``head``
- ``read`` (handle, size) -> ``data``, empty at the end, or ``failed``
- ``close`` (handle) -> nothing

A handle that is not open is answered with ``unknown``.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.wasm.wire import Wire
from runvisor.policies.hosts import AllowedHosts, canonical_host

MAX_OPEN: Final = 16
_MAX_FIELDS: Final = 100
_MAX_READ: Final = 1 << 20
_METHOD: Final = re.compile(r"[A-Z]{1,20}")
_URL: Final = re.compile(r"[\x21-\x7e]{1,8192}")
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "proxy-connection", "upgrade"})
_PORTS: Final = {"http": 80, "https": 443}


class Refused(Exception):
    """The request is not let out, or none at all; the reason is one sentence."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a guest asks for, checked."""

    method: str
    url: str
    scheme: str
    host: str
    port: int
    target: str
    """Path and query."""
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: bytes) -> Request:
        """Read a request, which is hostile.

        Raises:
            Refused: It is none.

        Example:
            >>> request = Request.parse(b'{"url": "http://A.test:8080/x?y", "headers": {"accept": "*/*"}}')
            >>> request.method, request.host, request.port, request.target
            ('GET', 'a.test', 8080, '/x?y')
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            raise Refused("the request is no JSON") from None
        if not isinstance(data, dict) or not set(data) <= {"method", "url", "headers"}:
            raise Refused("the request is no object of method, url and headers")
        method, url = data.get("method", "GET"), data.get("url")
        if not isinstance(method, str) or not _METHOD.fullmatch(method) or method == "CONNECT":
            raise Refused("the method is none")
        if not isinstance(url, str) or not _URL.fullmatch(url):
            raise Refused("the URL is no printable ASCII text of at most 8192 characters")
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError:
            raise Refused("the URL is malformed") from None
        host = canonical_host(parts.hostname or "")
        if parts.scheme not in _PORTS or host is None or "@" in parts.netloc or ":" in host:
            raise Refused("the URL is not http://host/... or https://host/...")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(method, url, parts.scheme, host, port or _PORTS[parts.scheme], target, _headers(data.get("headers")))


def _headers(data: object) -> tuple[tuple[str, str], ...]:
    pairs = list(data.items()) if isinstance(data, dict) else [] if data is None else data
    if not isinstance(pairs, list) or len(pairs) > _MAX_FIELDS:
        raise Refused(f"the headers are no object or list of at most {_MAX_FIELDS} pairs")
    found: list[tuple[str, str]] = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(item, str) for item in pair):
            raise Refused("a header is no pair of texts")
        name, value = str(pair[0]), str(pair[1])
        if name.lower() in _OURS:
            raise Refused(f"the header {name[:40]!r} is not the guest's to set")
        found.append((name, value))
    return tuple(found)


class Browser:
    """The open requests of one run.

    Args:
        allowed_hosts: The grant's patterns. The broker decides; they only tell its refusal from a server's.
        proxy: Address and port at which the broker takes requests.
    """

    def __init__(self, allowed_hosts: tuple[str, ...], proxy: tuple[str, int]) -> None:
        self._allowed = AllowedHosts.parse(allowed_hosts)
        self._proxy = proxy
        self._open: dict[int, http.client.HTTPResponse] = {}
        self._connections: dict[int, http.client.HTTPConnection] = {}
        self._heads: dict[int, bytes] = {}
        self._count = 0
        self._operations: Mapping[str, Callable[[Message], Message]] = {
            "open": self._begin,
            "head": self._head,
            "read": self._read,
            "close": self._close,
        }

    def answer(self, message: Message) -> Message:
        """Answer one question; whatever goes wrong is an answer too."""
        try:
            return self._operations[message["op"]](message)
        except Refused as refused:
            return {"refused": str(refused)}
        except (OSError, http.client.HTTPException, ValueError) as error:
            return {"failed": f"{type(error).__name__}: {error}"[:500]}

    def _begin(self, message: Message) -> Message:
        if len(self._open) >= MAX_OPEN:
            raise Refused(f"{MAX_OPEN} requests are open")
        request = Request.parse(message["request"])
        connection = self._connect(request, max(0.001, message["left_s"]))
        try:
            response = self._exchange(connection, request, message["body"])
        except BaseException:
            connection.close()
            raise
        if not self._allowed.allows(request.host, request.port):  # the broker has said so, and put it on record
            connection.close()
            raise Refused(f"{request.host}:{request.port} is not in network.allowed_hosts")
        self._count += 1
        self._open[self._count] = response
        self._connections[self._count] = connection
        head = {"status": response.status, "reason": response.reason or "", "headers": response.getheaders()}
        self._heads[self._count] = json.dumps(head).encode()
        return {"handle": self._count}

    def _connect(self, request: Request, timeout_s: float) -> http.client.HTTPConnection:
        if request.scheme == "http":
            return http.client.HTTPConnection(*self._proxy, timeout=timeout_s)
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(*self._proxy, timeout=timeout_s, context=context)
        connection.set_tunnel(request.host, request.port)
        return connection

    def _exchange(
        self, connection: http.client.HTTPConnection, request: Request, body: bytes
    ) -> http.client.HTTPResponse:
        place = request.host if request.port == _PORTS[request.scheme] else f"{request.host}:{request.port}"
        target = request.target if request.scheme == "https" else f"http://{place}{request.target}"
        try:
            connection.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", place)
            for name, value in request.headers:
                connection.putheader(name, value.encode("latin-1", "replace"))
            if body or request.method in ("POST", "PUT", "PATCH"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            return connection.getresponse()
        except OSError as error:
            if "Tunnel connection failed: 403" in str(error):
                raise Refused(str(error)[:300]) from None
            raise

    def _head(self, message: Message) -> Message:
        head = self._heads.get(message["handle"])
        return {"unknown": True} if head is None else {"head": head}

    def _read(self, message: Message) -> Message:
        response = self._open.get(message["handle"])
        if response is None:
            return {"unknown": True}
        return {"data": response.read1(min(message["size"], _MAX_READ)) if message["size"] else b""}

    def _close(self, message: Message) -> Message:
        response = self._open.pop(message["handle"], None)
        if response is None:
            return {"unknown": True}
        response.close()
        self._connections.pop(message["handle"]).close()
        del self._heads[message["handle"]]
        return {}


def preload(options: dict[str, Any]) -> None:
    """Nothing more: the imports above are what is heavy."""
    del options


def prepare(options: dict[str, Any]) -> None:
    """Nothing is to be made ahead."""
    del options


def serve(channel: FrameSocket, prepared: None) -> None:
    """Take the engine's end of a stream, and answer it until it ends."""
    del prepared
    message, fds = channel.receive_with_fds()
    if message is None:
        return
    wire = Wire(socket.socket(fileno=fds[0]))
    address, port = message["proxy"]
    browser = Browser(tuple(message["allowed_hosts"]), (address, port))
    while (question := wire.receive()) is not None:
        wire.send(browser.answer(question))
