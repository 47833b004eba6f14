"""The few system calls that Python does not wrap, each raising `OSError` with its name."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

MACHINE: Final = platform.machine()
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}.get(MACHINE, -1)
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442  # the same on every architecture

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2

RESOLVE_NO_XDEV: Final = 1
RESOLVE_NO_MAGICLINKS: Final = 2
RESOLVE_NO_SYMLINKS: Final = 4
RESOLVE_BENEATH: Final = 8
RESOLVE_IN_ROOT: Final = 16
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MADV_COLLAPSE: Final = 25

PR_SET_PDEATHSIG: Final = 1
PR_GET_DUMPABLE: Final = 3
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


def openat2(folder_fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open a path below a folder, with rules for how it may resolve (man 2 openat2).

    Returns:
        A descriptor, closed on exec.
    """
    how = struct.pack("<QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return syscall(_OPENAT2, folder_fd, path.encode(), how, len(how), what=f"openat2 {path}")


def detached_mount(fd: int, attributes: int) -> int:
    """Return a detached copy of the mounts at a descriptor, with attributes set on all of them.

    Needs CAP_SYS_ADMIN. See open_tree(2) and mount_setattr(2).

    Args:
        fd: A file or folder, opened with O_PATH.
        attributes: ``MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC`` as wanted; their values are the same there.
    """
    tree = syscall(
        _OPEN_TREE, fd, b"", _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE, what="open_tree"
    )
    try:
        change = struct.pack("<QQQQ", attributes, 0, 0, 0)
        syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, change, len(change), what="mount_setattr")
    except OSError:
        os.close(tree)
        raise
    return tree


def attach_mount(fd: int, target: str) -> None:
    """Attach what `detached_mount` made (man 2 move_mount)."""
    syscall(_MOVE_MOUNT, fd, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH, what=f"move_mount {target}")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones (man 2 unshare)."""
    checked(_libc.unshare(ctypes.c_int(flags)), f"unshare {flags:#x}")


def madvise(address: int, size_bytes: int, advice: int) -> None:
    """Say how a region of this process's memory is to be kept (man 2 madvise)."""
    checked(_libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes), advice), "madvise")


def setns(fd: int, kind: int) -> None:
    """Join a namespace (man 2 setns)."""
    checked(_libc.setns(fd, kind), "setns")


def prctl(option: int, *arguments: int) -> int:
    """Set or read a property of this process (man 2 prctl), with unused arguments zero."""
    padded = [ctypes.c_ulong(item) for item in (*arguments, 0, 0, 0, 0)[:4]]
    return checked(_libc.prctl(option, *padded), f"prctl {option}")
