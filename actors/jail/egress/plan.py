"""What a networked child sees of the network, computed from its grant alone.

Inside there is only ``lo``. Every granted name has a loopback address of its
own in /etc/hosts, so that a client that knows nothing of proxies connects to
it by name; one listener per port serves all addresses, and the address that
was connected to says which name was meant. Wildcards have no address: they
work through the proxy, which the environment names.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from runvisor.policies.errors import InvalidPermissions
from runvisor.policies.hosts import AllowedHosts, HostPattern, is_address

PROXY_ADDRESS: Final = "127.0.0.1"
CERTIFICATES: Final = ("/etc/ssl/certs", "/etc/pki/ca-trust/extracted", "/etc/pki/tls/certs")
"""Where systems keep the public certificates of authorities; shown to networked children."""
MAX_LISTENERS: Final = 32
"""Ports of one plan, the proxy's included: each is one descriptor to pass."""
_MAX_NAMES: Final = 1024
_FIRST_PROXY_PORT: Final = 3128
_FIRST_NAME: Final = int(ipaddress.IPv4Address("127.1.0.1"))
_LOOPBACK: Final = ipaddress.IPv4Network("127.0.0.0/8")
_PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True, slots=True)
class Route:
    """What a connection to one address and port inside means."""

    address: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """The network of one child: computed on the host, carried out inside, known to the broker.

    Example:
        >>> plan = NetworkPlan.of(("api.example.com", "db.example.com:5432", "*.example.org"))
        >>> [(route.address, route.host, route.port) for route in plan.routes]
        [('127.1.0.1', 'api.example.com', 80), ('127.1.0.1', 'api.example.com', 443), ('127.1.0.2', 'db.example.com', 5432)]
        >>> plan.ports, plan.environment["https_proxy"]
        ((3128, 80, 443, 5432), 'http://127.0.0.1:3128')
        >>> NetworkPlan.from_message(plan.to_message()) == plan
        True
    """  # noqa: E501

    allowed_hosts: tuple[str, ...]
    """The grant's patterns, as written."""
    proxy_port: int
    """Where the proxy listens inside, at `PROXY_ADDRESS`."""
    routes: tuple[Route, ...]
    """What else may be connected to."""

    @classmethod
    def of(cls, allowed_hosts: tuple[str, ...]) -> NetworkPlan:
        """Compute the plan of a grant.

        Args:
            allowed_hosts: Its ``network.allowed_hosts``.

        Raises:
            InvalidPermissions: A pattern can never match, or there are too many ports or names.
        """
        exact = [pattern for pattern in AllowedHosts.parse(allowed_hosts).patterns if pattern.kind == "exact"]
        addresses = _addresses(exact)
        routes = {(addresses[pattern.host], port): pattern.host for pattern in exact for port in pattern.ports}
        taken = {port for _, port in routes}
        if len(addresses) > _MAX_NAMES or len(taken) >= MAX_LISTENERS:
            raise InvalidPermissions(
                f"{len(addresses)} names on {len(taken)} ports are too many for one task",
                "network.allowed_hosts",
                f"name at most {_MAX_NAMES} hosts and {MAX_LISTENERS - 1} ports, or use a wildcard",
            )
        proxy_port = next(port for port in range(_FIRST_PROXY_PORT, 65536) if port not in taken)
        return cls(
            tuple(allowed_hosts),
            proxy_port,
            tuple(Route(address, host, port) for (address, port), host in sorted(routes.items(), key=_by_address)),
        )

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that are listened on inside, the proxy's first: all that Landlock need let connect to."""
        return (self.proxy_port, *sorted({route.port for route in self.routes}))

    @property
    def own_addresses(self) -> tuple[str, ...]:
        """Granted addresses outside 127.0.0.0/8, which ``lo`` must carry besides its own."""
        addresses = {route.address for route in self.routes}
        return tuple(sorted(item for item in addresses if ipaddress.IPv4Address(item) not in _LOOPBACK))

    @property
    def files(self) -> Mapping[str, str]:
        """The files of name resolution: path -> text. They name the granted hosts and no server."""
        names = sorted({(route.address, route.host) for route in self.routes if not is_address(route.host)})
        lines = ["127.0.0.1 localhost", *(f"{address} {host}" for address, host in names if host != "localhost")]
        return {
            "/etc/hosts": "\n".join(lines) + "\n",
            "/etc/nsswitch.conf": "hosts: files\n",
            "/etc/resolv.conf": "# Names are resolved outside: see /etc/hosts and the proxy.\n",
        }

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which programs find the proxy, in both spellings."""
        url = f"http://{PROXY_ADDRESS}:{self.proxy_port}"
        lower = {**dict.fromkeys(_PROXY_VARIABLES, url), "no_proxy": ""}
        return {**lower, **{name.upper(): value for name, value in lower.items()}}

    def to_message(self) -> dict[str, Any]:
        """Return the plan as plain data; it is computed anew from the patterns on the other side."""
        return {"allowed_hosts": list(self.allowed_hosts)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> NetworkPlan:
        """Read what `to_message` wrote."""
        return cls.of(tuple(message["allowed_hosts"]))


def _addresses(patterns: list[HostPattern]) -> dict[str, str]:
    """Give every host its address inside: granted addresses keep theirs, names get free ones."""
    found = {"localhost": PROXY_ADDRESS}
    for pattern in patterns:
        if is_address(pattern.host):
            address = ipaddress.IPv4Address(pattern.host)
            if address.is_unspecified or address.is_multicast or address.is_reserved:
                raise InvalidPermissions(f"{pattern.host} is not an address of one host", "network.allowed_hosts")
            found[pattern.host] = pattern.host
    free = _free_addresses(set(found.values()))
    for pattern in patterns:
        if pattern.host not in found:
            found[pattern.host] = next(free)
    return found


def _free_addresses(taken: set[str]) -> Iterator[str]:
    number = _FIRST_NAME
    while True:
        address = str(ipaddress.IPv4Address(number))
        if address not in taken:
            yield address
        number += 1


def _by_address(route: tuple[tuple[str, int], str]) -> tuple[int, int]:
    (address, port), _ = route
    return int(ipaddress.IPv4Address(address)), port
