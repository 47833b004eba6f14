"""Reading the server name from a TLS client's greeting, before one byte of it leaves.

An address serves many names: only the name in the greeting (SNI) says which
one is asked for. Sources: RFC 8446 sections 4.1.2, 4.1.4 and 5.1, RFC 6066
section 3, and RFC 9849 for the encrypted greeting.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from runvisor.actors.jail.egress.records import Refused
from runvisor.policies.hosts import canonical_host, is_address

HANDSHAKE: Final = 22
"""The first byte of a TLS connection."""
_BETWEEN_GREETINGS: Final = (20, 21)  # change_cipher_spec and alert: servers bear them before a second greeting
_CLIENT_HELLO: Final = 1
_SERVER_NAME, _EARLY_DATA, _ENCRYPTED_HELLO, _ENCRYPTED_NAME = 0, 42, 0xFE0D, 0xFFCE
_RECORD_HEAD: Final = 5
_MAX_RECORD: Final = 1 << 14
_MAX_HELLO: Final = 1 << 15


class HelloGuard:
    """Holds a client's bytes back until its greeting is whole and names the granted host.

    Feed it until `done`; what it returns may be passed on. It also checks a
    second greeting, which a client sends when the server asks it to retry.

    Args:
        host: The canonical host that was granted.

    Example:
        >>> guard = HelloGuard("api.example.com")
        >>> guard.feed(b"SSH-2.0-x")
        Traceback (most recent call last):
        ...
        runvisor.actors.jail.egress.records.Refused: ('only TLS may pass here, and this is none', 403)
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._pending = bytearray()
        self._hello = bytearray()
        self._held = bytearray()
        self.greeted = False
        """Whether a whole greeting has named the host."""
        self.done = False
        """Whether the rest of the client's bytes need no look."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the client and return those that may pass on now.

        Raises:
            Refused: They are no TLS greeting for the host.
        """
        if self.done:
            return data
        self._pending += data
        if not self.greeted and self._pending and self._pending[0] != HANDSHAKE:
            raise Refused("only TLS may pass here, and this is none")
        passed = bytearray()
        while not self.done and len(self._pending) >= _RECORD_HEAD:
            size = int.from_bytes(self._pending[3:5], "big")
            if self._pending[1] != 3 or not 0 < size <= _MAX_RECORD:
                if self.greeted:
                    break  # no handshake in the clear any more
                raise Refused("only TLS may pass here, and this is none")
            end = _RECORD_HEAD + size
            if len(self._pending) < end:
                return bytes(passed)
            kind, body = self._pending[0], bytes(self._pending[_RECORD_HEAD:end])
            if kind in _BETWEEN_GREETINGS and self.greeted and not self._hello:
                passed += self._pending[:end]
            elif kind == HANDSHAKE and (self._hello or body[0] == _CLIENT_HELLO):
                self._held += self._pending[:end]
                self._hello += body
                if self._take_hello():
                    passed += self._held
                    self._held.clear()
            elif self.greeted and not self._hello:
                break  # keys are agreed on: what follows is beyond retrying
            else:
                raise Refused("the TLS greeting is malformed")
            del self._pending[:end]
        else:
            return bytes(passed)
        self.done = True
        passed += self._pending
        self._pending.clear()
        return bytes(passed)

    def _take_hello(self) -> bool:
        """Check the greeting if it is whole."""
        if len(self._hello) < 4:
            return False
        end = 4 + int.from_bytes(self._hello[1:4], "big")
        if end > _MAX_HELLO:
            raise Refused("the TLS greeting is too long")
        if len(self._hello) < end:
            return False
        if len(self._hello) > end:
            raise Refused("the TLS greeting is malformed")
        name = _server_name(bytes(self._hello[4:]))
        if name is None and not is_address(self._host):
            raise Refused(f"the TLS greeting names no server; it must be {self._host}")
        if name is not None and name != self._host:
            raise Refused(f"the TLS greeting names another server than {self._host}")
        self._hello.clear()
        self.greeted = True
        return True


def _server_name(body: bytes) -> str | None:
    """Return the canonical server name of a ClientHello's body, or None if it has none.

    Raises:
        Refused: It is malformed, hides its name, or sends data along.
    """
    try:
        reader = _Reader(body)
        reader.take(34)  # version and random
        reader.vector(1)  # session id
        reader.vector(2)  # cipher suites
        reader.vector(1)  # compression methods
        if not reader.left:
            return None
        extensions = _Reader(reader.vector(2))
        if reader.left:
            raise Refused("the TLS greeting is malformed")
        names: list[str] = []
        for kind, data in extensions.pairs():
            if kind in (_ENCRYPTED_HELLO, _ENCRYPTED_NAME):
                raise Refused("the TLS greeting is encrypted (ECH), so the server it names cannot be checked")
            if kind == _EARLY_DATA:
                raise Refused("the TLS greeting brings early data (0-RTT), which could hide a second greeting")
            if kind == _SERVER_NAME:
                names.append(_only_name(data))
    except IndexError:
        raise Refused("the TLS greeting is malformed") from None
    if len(names) > 1:
        raise Refused("the TLS greeting names two servers")
    return names[0] if names else None


def _only_name(data: bytes) -> str:
    entries = _Reader(data)
    entry = _Reader(entries.vector(2))
    kind, text = entry.take(1)[0], entry.vector(2)
    name = canonical_host(text.decode("latin-1"))
    if entries.left or entry.left or kind != 0 or name is None or is_address(name):
        raise Refused("the server name in the TLS greeting is malformed")
    return name


class _Reader:
    """Cuts length-prefixed fields; too short raises `IndexError`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise IndexError
        self._at += size
        return self._data[self._at - size : self._at]

    def vector(self, width: int) -> bytes:
        return self.take(int.from_bytes(self.take(width), "big"))

    def pairs(self) -> Iterator[tuple[int, bytes]]:
        while self.left:
            yield int.from_bytes(self.take(2), "big"), self.vector(2)
