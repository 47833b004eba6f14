"""The kernel egress filter's programs: what a guest's cgroup may do with sockets, whatever else may fail around it.

Each is attached to a cgroup and asked by the kernel: 1 lets through, 0 refuses
with EPERM. What a guest may do is to connect by TCP, over IPv4, within a network
namespace that was admitted, to a port that was admitted for it, by the loopback
interface. Those are its broker's listeners and nothing else.

Source: include/uapi/linux/bpf.h (``struct bpf_sock``, ``bpf_sock_addr``,
``__sk_buff``), https://docs.kernel.org/bpf/libbpf/program_types.html, and
net/ipv4/af_inet.c, udp.c, ip_output.c for where they are asked.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

from runvisor.actors.ebpf.assembler import (
    GET_NETNS_COOKIE,
    MAP_LOOKUP,
    R0,
    R1,
    R2,
    R3,
    R6,
    R10,
    Step,
    add,
    assemble,
    call,
    copy,
    jump_if_above,
    jump_if_equal,
    jump_if_not_equal,
    jump_if_same,
    label,
    leave,
    load,
    put_map,
    put_wide,
    store,
    store_value,
)
from runvisor.actors.ebpf.bpf import ProgramType

_ALLOW, _REFUSE = 1, 0
_DOOR: Final = struct.Struct("<QII")
DOOR_BYTES: Final = _DOOR.size
"""Size of a key of the table of doors."""
LOOPBACK: Final = 1
"""The index of the loopback interface in every network namespace (LOOPBACK_IFINDEX)."""

# struct bpf_sock
_FAMILY, _TYPE, _PROTOCOL = 4, 8, 12
# struct bpf_sock_addr
_USER_PORT, _ADDRESS_PROTOCOL = 24, 36
# struct __sk_buff
_INTERFACE, _ETHERNET_PROTOCOL, _DATA, _DATA_END = 40, 16, 76, 80
_IPV4: Final = socket.htons(0x0800)
_IPV4_HEADER_BYTES: Final = 20
_IPV4_PROTOCOL: Final = 9


def door(netns_cookie: int, port: int) -> bytes:
    """Return the key under which a port of a network namespace is admitted.

    Example:
        >>> door(7, 0x1234).hex(" ", 4)
        '07000000 00000000 12340000 00000000'
    """
    return _DOOR.pack(netns_cookie, socket.htons(port), 0)


def create_socket(machine_cookie: int) -> bytes:
    """Return the program that is asked when an IPv4 or IPv6 socket is made: TCP over IPv4, and not on the machine.

    Args:
        machine_cookie: Of the machine's own network namespace (SO_NETNS_COOKIE in socket(7)).
    """
    return assemble(
        copy(R6, R1),
        _refuse_unless(_FAMILY, socket.AF_INET),
        _refuse_unless(_TYPE, socket.SOCK_STREAM),
        _refuse_unless(_PROTOCOL, socket.IPPROTO_TCP),
        copy(R1, R6),
        call(GET_NETNS_COOKIE),
        put_wide(R1, machine_cookie),
        jump_if_same(R0, R1, "refuse"),
        leave(_ALLOW),
        label("refuse"),
        leave(_REFUSE),
    )


def connect_by_door(doors_fd: int) -> bytes:
    """Return the program that is asked when an IPv4 socket connects: TCP, to a port that is admitted there.

    Args:
        doors_fd: A hash map whose keys `door` makes.
    """
    return assemble(
        copy(R6, R1),
        _refuse_unless(_ADDRESS_PROTOCOL, socket.IPPROTO_TCP),
        copy(R1, R6),
        call(GET_NETNS_COOKIE),
        store(8, R10, -DOOR_BYTES, R0),
        load(4, R1, R6, _USER_PORT),
        store(4, R10, 8 - DOOR_BYTES, R1),
        store_value(4, R10, 12 - DOOR_BYTES, 0),
        put_map(R1, doors_fd),
        copy(R2, R10),
        add(R2, -DOOR_BYTES),
        call(MAP_LOOKUP),
        jump_if_equal(R0, 0, "refuse"),
        leave(_ALLOW),
        label("refuse"),
        leave(_REFUSE),
    )


def send_by_loopback() -> bytes:
    """Return the program that is asked for each packet that leaves: TCP over IPv4, by the loopback interface."""
    return assemble(
        copy(R6, R1),
        _refuse_unless(_INTERFACE, LOOPBACK),
        _refuse_unless(_ETHERNET_PROTOCOL, _IPV4),
        load(4, R2, R6, _DATA),
        load(4, R3, R6, _DATA_END),
        copy(R1, R2),
        add(R1, _IPV4_HEADER_BYTES),
        jump_if_above(R1, R3, "refuse"),
        load(1, R1, R2, _IPV4_PROTOCOL),
        jump_if_not_equal(R1, socket.IPPROTO_TCP, "refuse"),
        leave(_ALLOW),
        label("refuse"),
        leave(_REFUSE),
    )


def refuse() -> bytes:
    """Return the program that refuses whatever it is asked."""
    return assemble(leave(_REFUSE))


def _refuse_unless(field: int, value: int) -> list[Step]:
    """Refuse unless a word of the context, which is in R6, has a value."""
    return [*load(4, R1, R6, field), *jump_if_not_equal(R1, value, "refuse")]


def programs(doors_fd: int, machine_cookie: int) -> dict[str, bytes]:
    """Return the program of each hook, by the hook's name.

    Args:
        doors_fd: See `connect_by_door`.
        machine_cookie: See `create_socket`.
    """
    return {
        **dict.fromkeys((hook.name for hook in HOOKS), refuse()),
        "socket": create_socket(machine_cookie),
        "connect4": connect_by_door(doors_fd),
        "packet": send_by_loopback(),
    }


@dataclass(frozen=True, slots=True)
class Hook:
    """A place in the kernel that asks a program."""

    name: str
    """For messages, and for bpftool."""
    kind: ProgramType
    attach_type: int
    """Of ``enum bpf_attach_type``."""
    is_required: bool = True
    """Without it there is no filter; the others are there since Linux 6.7."""


HOOKS: Final = (
    Hook("socket", ProgramType.CGROUP_SOCKET, 2),
    Hook("connect4", ProgramType.CGROUP_ADDRESS, 10),
    Hook("connect6", ProgramType.CGROUP_ADDRESS, 11),
    Hook("sendmsg4", ProgramType.CGROUP_ADDRESS, 14),
    Hook("sendmsg6", ProgramType.CGROUP_ADDRESS, 15),
    Hook("packet", ProgramType.CGROUP_PACKET, 1),
    Hook("connect_unix", ProgramType.CGROUP_ADDRESS, 49, is_required=False),
    Hook("sendmsg_unix", ProgramType.CGROUP_ADDRESS, 50, is_required=False),
)
"""All of them. The last two are asked when a unix socket goes to a name, which no guest needs: its own are pairs."""
