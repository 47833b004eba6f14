"""What the host patterns of a grant mean: which name and port they let through.

Pure text: nothing is resolved here. `runvisor.policies.permissions.Network`
says which patterns may be written; this module says what they match.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from runvisor.policies.errors import InvalidPermissions

WEB_PORTS: Final = (80, 443)
"""The ports of a pattern that names none."""
_ANYTHING: Final = "**"
_MAX_NAME: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


def canonical_host(text: str) -> str | None:
    """Return the one spelling under which a host is compared, or None if it is no host.

    Names become lower case and lose one final dot. Addresses must be written
    in their usual form: whatever ends in a number without being four plain
    decimal ones (``127.1``, ``0x7f.1``, ``2130706433``, ``010.0.0.1``) is no
    host, because resolvers read such text as an address. Non-ASCII names are
    none either; their ``xn--`` form is.

    Source: the host parser of the URL standard, https://url.spec.whatwg.org/#host-parsing,
    with every repair that it makes turned into a refusal.

    Args:
        text: A name, an IPv4 address, or an IPv6 address without brackets.

    Example:
        >>> canonical_host("API.Example.com."), canonical_host("127.1"), canonical_host("2001:DB8:0::1")
        ('api.example.com', None, '2001:db8::1')
    """
    if not text.isascii() or len(text) > _MAX_NAME + 1:
        return None
    if ":" in text:
        try:
            return None if "%" in text else str(ipaddress.IPv6Address(text))
        except ValueError:
            return None
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError:
            return None
    return name


def is_address(host: str) -> bool:
    """Say whether a canonical host is an address rather than a name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One entry of ``network.allowed_hosts``, understood.

    Example:
        >>> api = HostPattern.parse("*.example.com")
        >>> api.matches("a.b.example.com", 443), api.matches("example.com", 443), api.matches("a.example.com", 22)
        (True, False, False)
    """

    kind: Literal["exact", "below", "anything"]
    host: str
    """The canonical host; for ``below`` the name that must lie above; for ``anything`` empty."""
    port: int | None
    """The one port, or None for `WEB_PORTS` (for ``anything``: every port)."""

    @classmethod
    def parse(cls, pattern: str) -> HostPattern:
        """Read a pattern that `Network` has accepted.

        Raises:
            InvalidPermissions: It can never match: its port or address does not exist.
        """
        if pattern == _ANYTHING:
            return cls("anything", "", None)
        text, _, port = pattern.partition(":")
        below = text.startswith("*.")
        host = canonical_host(text[2:] if below else text)
        number = int(port) if port.isascii() and port.isdigit() else None
        if host is None or (below and is_address(host)) or ":" in host:
            raise InvalidPermissions(
                f"{pattern!r} is no host", "network.allowed_hosts", "write a name in ASCII or a.b.c.d"
            )
        if port and (number is None or not 1 <= number <= 65535):
            raise InvalidPermissions(f"{pattern!r} has no such port", "network.allowed_hosts", "use 1 to 65535")
        return cls("below" if below else "exact", host, number)

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports it lets through; empty means every port."""
        if self.kind == "anything":
            return ()
        return WEB_PORTS if self.port is None else (self.port,)

    def matches(self, host: str, port: int) -> bool:
        """Say whether it lets a canonical host and a port through."""
        if self.kind == "anything":
            return True
        if port not in self.ports:
            return False
        if self.kind == "below":
            return host.endswith("." + self.host)
        return host == self.host

    def covers(self, other: HostPattern) -> bool:
        """Say whether all that the other one lets through, this one does too.

        Example:
            >>> star, deep = HostPattern.parse("*.example.com"), HostPattern.parse("*.api.example.com:443")
            >>> star.covers(deep), deep.covers(star)
            (True, False)
        """
        if self.kind == "anything" or other.kind == "anything":
            return self.kind == "anything"
        if not set(other.ports) <= set(self.ports):
            return False
        if self.kind == "below":
            return other.host.endswith("." + self.host) or (other.kind == "below" and other.host == self.host)
        return other.kind == "exact" and other.host == self.host


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The host patterns of one grant. Empty lets nothing through.

    Example:
        >>> allowed = AllowedHosts.parse(["api.example.com", "127.0.0.1:8080"])
        >>> allowed.allows("api.example.com", 443), allowed.allows("api.example.com", 8080)
        (True, False)
        >>> allowed.names_address("127.0.0.1", 8080), allowed.names_address("127.0.0.1", 80)
        (True, False)
    """

    patterns: tuple[HostPattern, ...]

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> AllowedHosts:
        """Read the patterns of a grant.

        Raises:
            InvalidPermissions: One of them can never match.
        """
        return cls(tuple(HostPattern.parse(pattern) for pattern in patterns))

    def allows(self, host: str, port: int) -> bool:
        """Say whether a canonical host and a port are let through."""
        return any(pattern.matches(host, port) for pattern in self.patterns)

    def names_address(self, host: str, port: int) -> bool:
        """Say whether a pattern names this very address, or ``localhost``, and port.

        Only then may an address be reached that is not a global one: a
        wildcard or another name never leads to one.
        """
        named = is_address(host) or host == "localhost"
        return named and any(pattern.kind == "exact" and pattern.matches(host, port) for pattern in self.patterns)
