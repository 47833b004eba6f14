"""The few system calls that Python does not wrap, each raising `OSError` with its name."""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

MACHINE: Final = platform.machine()
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}.get(MACHINE, -1)

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_SET_NAME: Final = 15
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4


def checked(result: int, what: str) -> int:
    """Return the result of a libc call, or raise its errno under a name."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None, what: str) -> int:
    """Make a raw system call.

    Args:
        number: Its number on this machine.
        arguments: Integers, buffers, or None for a null pointer.
        what: Its name, for the error.
    """
    converted = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    return checked(_syscall(ctypes.c_long(number), *converted), what)


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """Mount a file system (man 2 mount)."""
    checked(
        _libc.mount(
            source.encode() if source else None,
            target.encode(),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            data.encode() if data else None,
        ),
        f"mount {target}",
    )


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """Detach a file system (man 2 umount2)."""
    checked(_libc.umount2(target.encode(), flags), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """Make another folder the root (man 2 pivot_root)."""
    syscall(_PIVOT_ROOT, new_root.encode(), put_old.encode(), what="pivot_root")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones (man 2 unshare)."""
    checked(_libc.unshare(ctypes.c_int(flags)), f"unshare {flags:#x}")


def setns(fd: int, kind: int) -> None:
    """Join a namespace (man 2 setns)."""
    checked(_libc.setns(fd, kind), "setns")


def prctl(option: int, *arguments: int) -> int:
    """Set or read a property of this process (man 2 prctl), with unused arguments zero."""
    padded = [ctypes.c_ulong(item) for item in (*arguments, 0, 0, 0, 0)[:4]]
    return checked(_libc.prctl(option, *padded), f"prctl {option}")
