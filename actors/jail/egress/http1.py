"""HTTP/1 requests, read so strictly that two readers cannot see two different ones.

Whatever RFC 9112 lets a recipient repair is refused here. What passes is
written anew, with one meaning: see `Request.forwarded`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from runvisor.actors.jail.egress.records import Refused
from runvisor.policies.hosts import canonical_host

MAX_HEAD_BYTES: Final = 1 << 16
_MAX_FIELDS: Final = 200
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#\\]+)(?::([0-9]{1,5}))?")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"host"))
_HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive te trailer upgrade http2-settings proxy-connection proxy-authorization "
    b"proxy-authenticate".split()
)
_PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    """One request, understood. ``CONNECT`` has a host and a port and nothing else."""

    method: str
    host: str
    """Canonical."""
    port: int
    path: bytes
    """What the server is asked for: the target in origin form."""
    version: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    """The header fields that are passed on; neither the host nor the body's length is among them."""
    body: int | Literal["chunked"]
    """Bytes of its body."""

    @property
    def authority(self) -> str:
        """The host and port as a Host field has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 80 else f"{host}:{self.port}"

    def forwarded(self) -> bytes:
        """Return the head to send on; the server is told to close after its answer."""
        lines = [
            b"%b %b %b" % (self.method.encode(), self.path, self.version),
            b"Host: " + self.authority.encode(),
            *(name + b": " + value for name, value in self.fields),
        ]
        if self.body == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
        elif self.body or any(self.method == method for method in ("POST", "PUT", "PATCH")):
            lines.append(b"Content-Length: %d" % self.body)
        return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def parse(head: bytes, *, meant: tuple[str, int] | None = None) -> Request:
    r"""Read a request's head, to the empty line that ends it.

    Args:
        head: Its bytes.
        meant: The host and port that the client connected to by name; None for a
            request to the proxy, whose target must say where it goes.

    Raises:
        Refused: It is malformed, ambiguous, or contradicts itself about its host.

    Example:
        >>> request = parse(b"GET http://A.test/x HTTP/1.1\r\nHost: a.test\r\nTE: gzip\r\n\r\n")
        >>> request.host, request.port, request.path, request.forwarded()
        ('a.test', 80, b'/x', b'GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n')
    """
    if not head.endswith(b"\r\n\r\n"):
        raise Refused("the request does not end", 400)
    first, *rest = head[:-4].split(b"\r\n")
    if len(rest) > _MAX_FIELDS:
        raise Refused("the request has too many header fields", 431)
    words = first.split(b" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not _TARGET.fullmatch(words[1]):
        raise Refused("the request line is malformed", 400)
    if words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Refused("only HTTP/1.0 and HTTP/1.1 requests are understood", 505)
    method, target, version = words[0].decode(), words[1].decode(), words[2]
    fields = [_field(line) for line in rest]
    length, encoding, host = (_only(fields, name) for name in (b"content-length", b"transfer-encoding", b"host"))
    body = _body(length, encoding, version)
    if host is None and version == b"HTTP/1.1":
        raise Refused("an HTTP/1.1 request names its host", 400)
    place, path = _place(method, target, meant)
    stated = None if host is None else _authority(host.decode("latin-1"), place[1] if method == "CONNECT" else 80)
    if stated is not None and stated != place:
        raise Refused("the Host field and the target of the request name different hosts", 400)
    if meant is not None and place != meant:
        raise Refused(f"the request names another host than {meant[0]}", 403)
    if method == "CONNECT" and (length is not None or encoding is not None):
        raise Refused("CONNECT has no body", 400)
    return Request(method, *place, path.encode(), version, _passed_on(fields), body)


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Split a header field; its name becomes lower case. A folded line has no name that is a token."""
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        raise Refused("a header field is malformed", 400)
    lower = name.lower()
    if b"_" in lower and lower.replace(b"_", b"-") in _FRAMING:
        raise Refused("a header field only looks like one that frames the request", 400)
    return lower, value.strip(b" \t")


def _only(fields: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    found = [value for known, value in fields if known == name]
    if len(found) > 1:
        raise Refused(f"the request has more than one {name.decode()} field", 400)
    return found[0] if found else None


def _body(length: bytes | None, encoding: bytes | None, version: bytes) -> int | Literal["chunked"]:
    if encoding is not None:
        if length is not None or version != b"HTTP/1.1" or encoding.lower() != b"chunked":
            raise Refused("the length of the request's body is ambiguous", 400)
        return "chunked"
    if length is None:
        return 0
    if not re.fullmatch(rb"[0-9]{1,15}", length):
        raise Refused("the content-length is no number", 400)
    return int(length)


def _authority(text: str, default_port: int | None) -> tuple[str, int]:
    """Read ``host:port``; user information, odd spellings of addresses and the like are refused."""
    match = _AUTHORITY.fullmatch(text)
    host = canonical_host(match[1].strip("[]")) if match else None
    port = int(match[2]) if match and match[2] else default_port
    if match is None or host is None or port is None or not 1 <= port <= 65535 or (":" in host) != (text[0] == "["):
        raise Refused("the host of the request is malformed", 400)
    return host, port


def _place(method: str, target: str, meant: tuple[str, int] | None) -> tuple[tuple[str, int], str]:
    """Say where a request goes and what it asks for there.

    Args:
        method: Its method.
        target: Its target.
        meant: The place of a target that names none, or None if it must name one.
    """
    if method == "CONNECT":
        if meant is not None:
            raise Refused("CONNECT is for the proxy", 405)
        return _authority(target, None), ""
    if target.lower().startswith("http://"):
        end = next((at for at, letter in enumerate(target[7:], 7) if letter in "/?#"), len(target))
        place, path = _authority(target[7:end], 80), target[end:]
    elif meant is not None and (target.startswith("/") or (target == "*" and method == "OPTIONS")):
        place, path = meant, target
    else:
        raise Refused("the target of a request to the proxy begins with http://", 400)
    if "#" in path:
        raise Refused("the target of the request has a fragment", 400)
    return place, path if path.startswith("/") or path == "*" else f"/{path}"


def _passed_on(fields: list[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    named = {
        token.strip(b" \t").lower() for name, value in fields if name == b"connection" for token in value.split(b",")
    }
    if named & _FRAMING:
        raise Refused("the Connection field names one that frames the request", 400)
    dropped = named | _HOP_BY_HOP | _FRAMING
    return tuple((name, value) for name, value in fields if name not in dropped)


class Source(Protocol):
    """What `body` reads from: `asyncio.StreamReader` is one."""

    async def read(self, n: int = -1, /) -> bytes:
        """Return up to ``n`` bytes, or none at the end."""
        ...

    async def readuntil(self, separator: bytes = ..., /) -> bytes:
        """Return bytes up to and with the separator."""
        ...

    async def readexactly(self, n: int, /) -> bytes:
        """Return ``n`` bytes."""
        ...


async def body(request: Request, source: Source) -> AsyncIterator[bytes]:
    """Yield the pieces of a request's body as they come, written anew; no byte after it is read on.

    Raises:
        Refused: Its chunks are malformed, or carry extensions or trailers.
        asyncio.IncompleteReadError: The client left in the middle.
    """
    if request.body != "chunked":
        left = request.body
        while left:
            piece = await source.read(min(left, _PIECE)) or await source.readexactly(1)
            left -= len(piece)
            yield piece
        return
    while True:
        match = _CHUNK_SIZE.fullmatch(await source.readuntil(b"\n"))
        if match is None:
            raise Refused("a chunk of the request's body is malformed", 400)
        left = int(match[1], 16)
        yield b"%x\r\n" % left
        if left == 0:
            if await source.readexactly(2) != b"\r\n":
                raise Refused("the request's body has trailers", 400)
            yield b"\r\n"
            return
        while left:
            piece = await source.read(min(left, _PIECE)) or await source.readexactly(1)
            left -= len(piece)
            yield piece
        if await source.readexactly(2) != b"\r\n":
            raise Refused("a chunk of the request's body is malformed", 400)
        yield b"\r\n"
