"""What the broker gives up before it reads a guest's first byte.

It must reach the network, so it stays in the machine's network namespace;
of everything else it keeps nothing it does not use.
"""

from __future__ import annotations

import os
import resource
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from runvisor.actors.jail import capabilities, kernel, landlock, limits, mounts
from runvisor.actors.jail.egress.syscalls import relay_filter
from runvisor.policies.permissions import GiB

RESOLVER_FILES: Final = (
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
)
"""What the machine's resolver reads; nothing else of /etc is shown."""
_DESCRIPTORS: Final = 16384
_ADDRESS_SPACE: Final = 4 * GiB
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_LIMITS: Final = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 1 << 16,  # its last words, at most
    resource.RLIMIT_NPROC: 64,
    resource.RLIMIT_NOFILE: _DESCRIPTORS,
    resource.RLIMIT_AS: _ADDRESS_SPACE,
}


def confine(uid: int) -> None:
    """Bind the calling, single-threaded process for good.

    As root: a read-only root with the interpreter and the resolver's files,
    its own ipc and uts namespaces, its own uid, no capability. Always:
    no_new_privs, resource limits, a system-call allow-list, and Landlock
    where the kernel has it, so that without root too the user's files stay shut.

    Args:
        uid: A user id that nothing else has; 0 stays who it is, without root.
    """
    _load_resolver()
    syscalls = relay_filter()
    readable = (*mounts.interpreter_paths(), *RESOLVER_FILES)
    if uid:
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
        shown = mounts.enter_read_only_root(readable)
    else:
        shown = mounts.existing_paths(readable)
    for limit, value in _LIMITS.items():
        limits.lower(limit, value)
    if uid:
        capabilities.drop_from_bounding_set()
        capabilities.become(uid)
        capabilities.drop_capabilities()
    capabilities.lock_privileges()
    _read_nothing_but(shown)
    syscalls.load()


def _load_resolver() -> None:
    """Load what is loaded at the first lookup: codecs, and the plug-ins of the system's resolver."""
    "name".encode("idna")
    socket.getaddrinfo("localhost", None)


def _read_nothing_but(paths: Iterable[str]) -> None:
    """Shut every other file; connections stay free, unlike in a guest's `landlock.Ruleset`."""
    version = landlock.abi()
    if version < 1:
        return
    handled = (1 << (13 if version == 1 else 14 if version == 2 else 15 if version < 5 else 16)) - 1
    scope = 3 if version >= 6 else 0  # abstract unix sockets, and signals to others
    attributes = struct.pack("<QQQ", handled, 0, scope)[: 24 if version >= 6 else 8]
    ruleset = kernel.syscall(_CREATE_RULESET, attributes, len(attributes), 0, what="landlock_create_ruleset")
    for path in paths:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        access = _READ_FILE | (_READ_FOLDER if Path(path).is_dir() else 0)
        kernel.syscall(_ADD_RULE, ruleset, 1, struct.pack("<Qi", access, fd), 0, what=f"landlock_add_rule {path}")
        os.close(fd)
    kernel.syscall(_RESTRICT_SELF, ruleset, 0, what="landlock_restrict_self")
    os.close(ruleset)
