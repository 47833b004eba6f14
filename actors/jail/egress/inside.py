"""The child's side, before it is sealed: its loopback interface and its listeners.

The sockets belong to the child's own network namespace, wherever their
descriptors go: passed out, they are accepted on by the broker, and nothing
else of the outside can be reached. See network_namespaces(7), netdevice(7).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
from typing import Final

from runvisor.actors.jail.egress.plan import PROXY_ADDRESS, NetworkPlan

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
_UP: Final = 0x1
_RUNNING: Final = 0x40
_BACKLOG: Final = 64


def prepare(plan: NetworkPlan) -> list[socket.socket]:
    """Bring up ``lo`` and listen on the plan's ports.

    Needs CAP_NET_ADMIN and CAP_NET_BIND_SERVICE in a network namespace of the
    caller's own. The caller passes the listeners out, closes them, and writes
    ``plan.files``.

    Args:
        plan: The network of this child.

    Returns:
        One listener per port of ``plan.ports``, in that order.

    Raises:
        OSError: The network is in use already, or the interface or a listener could not be had;
            nothing is left open.
    """
    listeners: list[socket.socket] = []
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as control:  # the kernel filter lets no other be made
            _check_unused(control)
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP | _RUNNING))
            for number, address in enumerate(plan.own_addresses):
                alias = f"lo:{number}".encode()
                fcntl.ioctl(control, _SIOCSIFADDR, _with_address(alias, address))
                # Without it the kernel takes the mask of the address's historic class: a whole network.
                fcntl.ioctl(control, _SIOCSIFNETMASK, _with_address(alias, "255.255.255.255"))
        for port in plan.ports:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listeners.append(listener)
            listener.bind(("0.0.0.0", port))
            listener.listen(_BACKLOG)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def is_filtered() -> bool:
    """Say whether the kernel egress filter is in force around this process, by trying what only that refuses.

    To be asked after `prepare`, before anything else is applied that refuses sockets.
    """
    with contextlib.suppress(PermissionError):
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        return trial.connect_ex((PROXY_ADDRESS, 0)) == errno.EPERM  # without it: nobody listens on port 0


def _check_unused(control: socket.socket) -> None:
    """Refuse a network that is in use: it would be the machine's, and the listeners open to it."""
    for _, name in socket.if_nameindex():
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16s16x", name.encode()))
        if struct.unpack_from("H", answer, 16)[0] & _UP:
            raise OSError(errno.EBUSY, f"{name} is up: this network namespace is not the caller's own")


def _with_address(name: bytes, address: str) -> bytes:
    """Lay out a ``struct ifreq`` that holds an IPv4 address."""
    return struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address))
