"""From a granted host and port to the addresses that may be connected to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from runvisor.actors.jail.egress.addresses import is_own, refusal
from runvisor.actors.jail.egress.records import Refused
from runvisor.policies.errors import InvalidPermissions
from runvisor.policies.hosts import AllowedHosts, canonical_host, is_address

_LOOPBACKS: Final = ("127.0.0.1", "::1")
_MAX_ADDRESSES: Final = 8
_LOOKUPS: Final = 4


class Resolver(Protocol):
    """Turns a name into addresses."""

    async def addresses(self, name: str) -> Sequence[str]:
        """Return the addresses of a canonical name.

        Raises:
            OSError: It has none, or could not be asked for.
        """
        ...


class SystemResolver:
    """Asks the machine's own resolver, in few threads at a time: one execution cannot take them all."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(_LOOKUPS)

    async def addresses(self, name: str) -> Sequence[str]:
        """See `Resolver`. The final dot keeps the machine's search domains out of it."""
        await self._room.acquire()
        lookup = asyncio.ensure_future(
            asyncio.get_running_loop().getaddrinfo(name + ".", None, type=socket.SOCK_STREAM)
        )
        # A thread cannot be cancelled: its place is free when it ends, whoever still waits for it.
        lookup.add_done_callback(self._leave)
        found = await asyncio.shield(lookup)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:_MAX_ADDRESSES]

    def _leave(self, lookup: asyncio.Future[Any]) -> None:
        self._room.release()
        if not lookup.cancelled():
            lookup.exception()  # seen, whether or not somebody still waits


@dataclass(frozen=True, slots=True)
class PinnedHosts:
    """Where the operator has put hosts by hand: such places need not be global.

    Example:
        >>> pinned = PinnedHosts.parse({"db.internal": "10.0.0.7", "api.test:443": "127.0.0.1:8443"})
        >>> pinned.place("db.internal", 5432), pinned.place("api.test", 443), pinned.place("api.test", 80)
        (('10.0.0.7', 5432), ('127.0.0.1', 8443), None)
    """

    places: Mapping[tuple[str, int | None], tuple[str, int | None]] = field(default_factory=dict)

    @classmethod
    def parse(cls, table: Mapping[str, str]) -> PinnedHosts:
        """Read a table of ``name`` or ``name:port`` to ``address`` or ``address:port`` (IPv4).

        Raises:
            InvalidPermissions: An entry is none of that.
        """
        return cls({_split(key, False): _split(value, True) for key, value in table.items()})

    def place(self, host: str, port: int) -> tuple[str, int] | None:
        """Return the address and port to use for a host and port, or None if they are not pinned."""
        found = self.places.get((host, port)) or self.places.get((host, None))
        return None if found is None else (found[0], port if found[1] is None else found[1])


def _split(text: str, must_be_address: bool) -> tuple[str, int | None]:
    name, colon, port = text.partition(":")
    host = canonical_host(name)
    sound_port = not colon or (port.isascii() and port.isdigit() and 0 < int(port) < 65536)
    if host is None or not sound_port or (must_be_address and not is_address(host)):
        raise InvalidPermissions(f"{text!r} is no entry of a host table", "hosts", "write name[:port]: address[:port]")
    return host, int(port) if colon else None


@dataclass(frozen=True, slots=True)
class Destinations:
    """Finds where a granted host and port lead.

    A name is resolved here, once per connection, and the connection goes to
    the address that was checked: a second answer of the name's server is
    never asked for.
    """

    allowed: AllowedHosts
    pinned: PinnedHosts = PinnedHosts()
    resolver: Resolver = field(default_factory=SystemResolver)

    async def find(self, host: str, port: int) -> list[tuple[str, int]]:
        """Return the addresses and port to try, in order.

        Args:
            host: Canonical.
            port: As asked for.

        Raises:
            Refused: The grant does not let them through, or an address is not a global one of another machine.
            OSError: The name has no address.
        """
        if not self.allowed.allows(host, port):
            raise Refused(f"{host}:{port} is not in network.allowed_hosts")
        place = self.pinned.place(host, port)
        if place is not None:
            return [place]
        if self.allowed.names_address(host, port):
            return [(address, port) for address in (_LOOPBACKS if host == "localhost" else (host,))]
        addresses = [host] if is_address(host) else await self.resolver.addresses(host)
        for address in addresses:
            reason = refusal(address) or (f"{address} is an address of this machine" if is_own(address) else None)
            if reason is not None:
                raise Refused(reason if is_address(host) else f"{host} leads astray: {reason}")
        if not addresses:
            raise OSError(f"{host} has no address")
        return [(address, port) for address in addresses]
