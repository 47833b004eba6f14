"""Landlock: the file system rules that hold even if the mounts were wrong.

Source: https://docs.kernel.org/userspace-api/landlock.html (ABI 1 to 7).
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runvisor.actors.jail import kernel

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every architecture
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_SPECIAL: Final = (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11)  # char, socket, fifo, block
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2
_ON_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
READ: Final = _EXECUTE | _READ_FILE | _READ_DIR


def abi() -> int:
    """Return the kernel's Landlock ABI, or 0 where there is none."""
    try:
        return kernel.syscall(_CREATE, None, 0, 1, what="landlock_create_ruleset")
    except OSError:
        return 0


class Ruleset:
    """A ruleset to be built while paths still resolve and enforced later.

    Args:
        readable: Paths that may be read and executed.
        writable: Paths that may also be changed.
        devices: Device files that may be read and written.
        connect_ports: TCP ports that may be connected to (ABI 4); every other is refused, and so is binding.
    """

    def __init__(
        self,
        *,
        readable: Sequence[str] = (),
        writable: Sequence[str] = (),
        devices: Sequence[str] = (),
        connect_ports: Sequence[int] = (),
    ) -> None:
        version = abi()
        if version < 1:
            raise OSError(errno.ENOSYS, "this kernel has no Landlock")
        everything = (1 << (13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16)) - 1
        net = _BIND_TCP | _CONNECT_TCP if version >= 4 else 0  # what no rule names is refused
        scope = 3 if version >= 6 else 0  # abstract unix sockets and signals stay inside
        attributes = struct.pack("<QQQ", everything, net, scope)[: 24 if version >= 6 else 16 if version >= 4 else 8]
        self._everything = everything
        self._fd = kernel.syscall(_CREATE, attributes, len(attributes), 0, what="landlock_create_ruleset")
        for path in readable:
            self._add(path, READ)
        for path in writable:
            self._add(path, everything & ~_MAKE_SPECIAL)
        for path in devices:
            self._add(path, _READ_FILE | _WRITE_FILE)
        for port in connect_ports if net else ():
            rule = struct.pack("<QQ", _CONNECT_TCP, port)
            kernel.syscall(_ADD, self._fd, _RULE_NET_PORT, rule, 0, what=f"landlock_add_rule port {port}")

    def _add(self, path: str, access: int) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            allowed = access & self._everything
            if not Path(path).is_dir():
                allowed &= _ON_FILES
            kernel.syscall(
                _ADD, self._fd, _RULE_PATH_BENEATH, struct.pack("<Qi", allowed, fd), 0, what=f"landlock_add_rule {path}"
            )
        finally:
            os.close(fd)

    def enforce(self) -> None:
        """Bind the calling thread, and the threads it starts later, to the rules for good.

        Needs no_new_privs or CAP_SYS_ADMIN. The ruleset is closed.
        """
        kernel.syscall(_RESTRICT, self._fd, 0, what="landlock_restrict_self")
        os.close(self._fd)
