"""The network side of ``fetch``: HTTP/1.1 by the standard library, one thread per request.

Bodies move only when the other side asks: the next chunk of a response is
read after `Fetcher.pull`, and the next chunk of a request is taken after the
last has left. The jail decides what can be reached; without a grant the very
first ``socket()`` fails, and the answer names the permission.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import ssl
import threading
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

CHUNK_BYTES: Final = 1 << 16
MAX_REQUESTS: Final = 10_000
MAX_OPEN: Final = 32
_MAX_REDIRECTS: Final = 20
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_GRANT: Final = "grant the host in network.allowed_hosts"


class Kind(IntEnum):
    """What an answer is."""

    HEAD = 1
    CHUNK = 2
    END = 3
    FAILED = 4
    SENT = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """One step of a request, on its way to the task."""

    request: int
    kind: Kind
    text: str = ""
    data: bytes = b""


class Fetcher:
    """Runs requests, and answers step by step.

    Args:
        answer: Takes each answer, on the request's thread.
    """

    def __init__(self, answer: Callable[[Answer], None]) -> None:
        self._answer = answer
        self._requests: dict[int, _Request] = {}
        self._count = 0

    @property
    def busy_count(self) -> int:
        """How many requests will answer without being asked again."""
        return sum(not request.is_resting for request in list(self._requests.values()))

    def open(self, text: str) -> int:
        """Begin a request.

        Args:
            text: JSON with ``url``, ``method``, ``headers`` (pairs), ``redirect`` and
                ``body``: null, a size in bytes, or -1 for one of unknown size.

        Returns:
            Its number, or -1 when there have been, or are, too many.
        """
        if self._count >= MAX_REQUESTS or len(self._requests) >= MAX_OPEN:
            return -1
        self._count += 1
        number = self._count
        request = _Request(number, json.loads(text), self._answer)
        self._requests[number] = request
        threading.Thread(target=self._run, args=(request,), daemon=True).start()
        return number

    def send(self, number: int, chunk: bytes | None) -> int:
        """Pass a chunk of the request's body on, or its end; answered by `Kind.SENT`."""
        if (request := self._requests.get(number)) is not None:
            request.outgoing.put(chunk)
        return 0

    def pull(self, number: int) -> None:
        """Ask for the next chunk of the response's body."""
        if (request := self._requests.get(number)) is not None:
            request.wanted.put(True)

    def close(self, number: int) -> None:
        """Break a request off."""
        if (request := self._requests.pop(number, None)) is not None:
            request.abort()

    def close_all(self) -> None:
        """Break off whatever is under way."""
        for number in list(self._requests):
            self.close(number)

    def _run(self, request: _Request) -> None:
        try:
            request.run()
        except _Aborted:
            pass
        except Exception as error:
            if not request.aborted:
                self._answer(Answer(request.number, Kind.FAILED, explain(error, request.host)))
        finally:
            self._requests.pop(request.number, None)


def explain(error: Exception, host: str) -> str:
    """Say why a request failed, and what to do about it.

    Example:
        >>> explain(PermissionError(1, "not permitted"), "a.example")
        'the network is not granted: grant the host in network.allowed_hosts'
    """
    if isinstance(error, PermissionError):
        return f"the network is not granted: {_GRANT}"
    if isinstance(error, socket.gaierror):
        return f"{host} has no address here: {_GRANT}"
    return f"{host}: {error or type(error).__name__}"


class _Aborted(Exception):
    """The task has lost interest."""


class _Request:
    def __init__(self, number: int, options: dict[str, Any], answer: Callable[[Answer], None]) -> None:
        self.number = number
        self.host = ""
        self.aborted = False
        self.is_resting = False
        self.outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._options = options
        self._answer_to = answer
        self._connection: http.client.HTTPConnection | None = None

    def abort(self) -> None:
        self.aborted = True
        self.outgoing.put(None)
        self.wanted.put(False)
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        url, redirects = str(self._options["url"]), 0
        method, body = str(self._options["method"]), self._options["body"]
        headers = [(str(name), str(value)) for name, value in self._options["headers"]]
        while True:
            response = self._exchange(url, method, headers, body)
            location = response.getheader("location")
            mode = self._options["redirect"]
            if response.status not in _REDIRECTS or location is None or mode == "manual":
                break
            if mode == "error":
                raise http.client.HTTPException("it redirects, which this request forbids")
            if redirects >= _MAX_REDIRECTS:
                raise http.client.HTTPException(f"more than {_MAX_REDIRECTS} redirects")
            redirects += 1
            to_get = response.status == 303 or (response.status in (301, 302) and method == "POST")
            if body is not None and not to_get:
                raise http.client.HTTPException("it redirects a request with a body")
            if to_get and method != "HEAD":
                method, body = "GET", None
                headers = [pair for pair in headers if not pair[0].lower().startswith("content-")]
            target = urllib.parse.urljoin(url, location)
            if urllib.parse.urlsplit(target)[:2] != urllib.parse.urlsplit(url)[:2]:
                private = ("authorization", "cookie", "proxy-authorization")
                headers = [pair for pair in headers if pair[0].lower() not in private]
            self._close()
            url = target
        self._say(
            Kind.HEAD,
            json.dumps(
                {
                    "status": response.status,
                    "statusText": response.reason or "",
                    "headers": response.getheaders(),
                    "url": url,
                    "redirected": redirects > 0,
                }
            ),
        )
        for chunk in _decoded(response):
            self._wait_for_pull()
            self._say(Kind.CHUNK, data=chunk)
        self._close()
        self._wait_for_pull()
        self._say(Kind.END)

    def _exchange(
        self, url: str, method: str, headers: list[tuple[str, str]], body: int | None
    ) -> http.client.HTTPResponse:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise http.client.HTTPException(f"{parts.scheme or 'this kind of'} URLs cannot be fetched")
        self.host = parts.hostname
        socket.socket().close()  # without a grant this says so, where a failing name would not
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=context)
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port)
        connection = self._connection
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.putrequest(method, path, skip_accept_encoding=True)
        names = {name.lower() for name, _ in headers}
        for name, value in (("Accept", "*/*"), ("Accept-Encoding", "gzip, deflate"), ("User-Agent", "runvisor")):
            if name.lower() not in names:
                connection.putheader(name, value)
        for name, value in headers:
            if name.lower() not in ("host", "content-length", "transfer-encoding", "connection"):
                connection.putheader(name, value.encode("latin-1", "replace"))
        if body is not None and body >= 0:
            connection.putheader("Content-Length", str(body))
        elif body is not None:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        if body is not None:
            while (chunk := self.outgoing.get()) is not None:
                connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk) if body < 0 else chunk)
                self._say(Kind.SENT)
            if self.aborted:
                raise _Aborted
            if body < 0:
                connection.send(b"0\r\n\r\n")
        return connection.getresponse()

    def _wait_for_pull(self) -> None:
        self.is_resting = self.wanted.empty()
        wanted = self.wanted.get()
        self.is_resting = False
        if not wanted or self.aborted:
            raise _Aborted

    def _say(self, kind: Kind, text: str = "", data: bytes = b"") -> None:
        if self.aborted:
            raise _Aborted
        self._answer_to(Answer(self.number, kind, text, data))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _decoded(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body as it comes, decompressed; never more than a chunk ahead."""
    encoding = (response.getheader("content-encoding") or "").strip().lower()
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding in ("gzip", "x-gzip", "deflate") else None
    while chunk := response.read1(CHUNK_BYTES):
        if decoder is None:
            yield chunk
            continue
        while chunk:
            if plain := decoder.decompress(chunk, CHUNK_BYTES):
                yield plain
            chunk = decoder.unconsumed_tail
    if decoder is not None and (rest := decoder.flush()):
        yield rest
