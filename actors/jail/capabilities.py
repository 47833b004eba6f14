"""Dropping root: one uid per instance, and no capability but those named. See capabilities(7)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection, Iterable
from typing import Final

from runvisor.actors.jail import kernel

NUMBERS: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24, "CAP_PERFMON": 38, "CAP_BPF": 39}
_CAPGET: Final = {"x86_64": 125, "aarch64": 90}.get(kernel.MACHINE, -1)
_CAPSET: Final = {"x86_64": 126, "aarch64": 91}.get(kernel.MACHINE, -1)
_VERSION_3: Final = 0x20080522
_LAST: Final = 63


def become(uid: int, kept: Collection[str] = ()) -> None:
    """Take a user and group id for good.

    Every thread of the process changes its uid (glibc sees to that), which
    empties its capabilities too; ``kept`` ones stay with the calling thread only.

    Args:
        uid: The user and group id to take; not 0.
        kept: Names from `NUMBERS` that `drop_capabilities` is going to keep.
    """
    if kept:
        kernel.prctl(kernel.PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def drop_from_bounding_set(kept: Iterable[str] = ()) -> None:
    """Let no later exec gain a capability but ``kept``; to be called before the uid changes."""
    numbers = [NUMBERS[name] for name in kept]
    for number in range(_LAST + 1):
        if number not in numbers:
            try:
                kernel.prctl(kernel.PR_CAPBSET_DROP, number)
            except OSError:  # beyond this kernel's last capability, or there is none to lose
                break
    kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL)


def drop_capabilities(kept: Iterable[str] = ()) -> None:
    """Give up every capability of the calling thread but ``kept``."""
    mask = sum(1 << NUMBERS[name] for name in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("<Ii", _VERSION_3, 0)
    data = struct.pack("<6I", low, low, 0, high, high, 0)
    kernel.syscall(_CAPSET, header, data, what="capset")


def limit_effective(mask: int) -> None:
    """Let the calling thread use no capability but those of a set, of those that it may have.

    It may take the others back: a thread without them, in a process with them, could be traced by
    whoever has its uid and as few, who would so have the process (see "Ptrace access mode checking" in ptrace(2)).

    Args:
        mask: A bit for each, as in the lines ``Cap...:`` of /proc/pid/status.
    """
    header, data = struct.pack("<Ii", _VERSION_3, 0), ctypes.create_string_buffer(24)
    kernel.syscall(_CAPGET, header, data, what="capget")
    _, low, low_inheritable, _, high, high_inheritable = struct.unpack("<6I", data.raw)
    sets = (mask & low, low, low_inheritable, mask >> 32 & high, high, high_inheritable)
    kernel.syscall(_CAPSET, header, struct.pack("<6I", *sets), what="capset")


def lock_privileges() -> None:
    """Set no_new_privs: no later exec can gain what was dropped."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
