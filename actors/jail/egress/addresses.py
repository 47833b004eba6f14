"""Which addresses a name may lead to: global ones of other machines, and no others.

Source: the IANA special-purpose address registries (RFC 6890) and the forms in
which an IPv6 address carries an IPv4 one (RFC 4291, 3056, 4380, 6052, 5214).
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Said here rather than left to `is_global`, whose answers differ between Python's releases.
_NOT_GLOBAL: Final = tuple(
    ipaddress.ip_network(text)
    for text in """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/3
    2001::/23 2001:db8::/32 2620:4f:8000::/48 3fff::/20
    """.split()
)
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP: Final = (0x00005EFE, 0x02005EFE)
_METADATA: Final = ipaddress.IPv4Address("168.63.129.16")
"""A global address by which one large cloud serves secrets to its machines; others' are link-local."""


def refusal(text: str) -> str | None:
    """Return why a resolved address may not be reached, or None if it may.

    Example:
        >>> refusal("169.254.169.254"), refusal("::ffff:10.0.0.1"), refusal("8.8.8.8")
        ('169.254.169.254 is not a global address', '::ffff:10.0.0.1 is not a global address', None)
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "the resolver gave no address"
    for form in _forms(address):
        inside = any(form in network for network in _NOT_GLOBAL if network.version == form.version)
        if inside or not form.is_global or form == _METADATA:
            return f"{text} is not a global address"
    return None


def _forms(address: _Address) -> list[_Address]:
    """List what must be global: the address, or for a carrier of an IPv4 address also (or only) that one."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    low = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _NAT64:
        return [low]
    forms: list[_Address] = [address]
    if address not in _GLOBAL_V6:
        forms.append(ipaddress.IPv4Address(0))  # never global
    if address.sixtofour is not None:
        forms.append(address.sixtofour)
    if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        forms.append(low)
    return forms


def is_own(text: str) -> bool:
    """Say whether an address is one of this machine's: its services do not expect guests.

    Asks the kernel's routing table (connecting a datagram socket sends
    nothing): only its own addresses are reached from themselves.
    """
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((text, 9))
            return ipaddress.ip_address(probe.getsockname()[0]) == ipaddress.ip_address(text)
    except OSError:  # no route: connecting will say so
        return False
