"""Numbers and layouts of WASI preview 1.

Source: https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md
"""

from __future__ import annotations

import errno as host
import os
import stat
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

MODULE: Final = "wasi_snapshot_preview1"


class Errno(IntEnum):
    """What a function answers with, as far as it is ever answered here."""

    SUCCESS = 0
    TOO_BIG = 1
    ACCES = 2
    AGAIN = 6
    BADF = 8
    BUSY = 10
    DQUOT = 19
    EXIST = 20
    FAULT = 21
    FBIG = 22
    ILSEQ = 25
    INTR = 27
    INVAL = 28
    IO = 29
    ISDIR = 31
    LOOP = 32
    MFILE = 33
    MLINK = 34
    NAMETOOLONG = 37
    NFILE = 41
    NOENT = 44
    NOMEM = 48
    NOSPC = 51
    NOSYS = 52
    NOTDIR = 54
    NOTEMPTY = 55
    NOTSOCK = 57
    NOTSUP = 58
    NXIO = 60
    OVERFLOW = 61
    PERM = 63
    PIPE = 64
    ROFS = 69
    SPIPE = 70
    TXTBSY = 74
    XDEV = 75
    NOTCAPABLE = 76


_OF_HOST: Final[Mapping[int, Errno]] = {
    host.E2BIG: Errno.TOO_BIG,
    host.EACCES: Errno.ACCES,
    host.EAGAIN: Errno.AGAIN,
    host.EBADF: Errno.BADF,
    host.EBUSY: Errno.BUSY,
    host.EDQUOT: Errno.DQUOT,
    host.EEXIST: Errno.EXIST,
    host.EFAULT: Errno.FAULT,
    host.EFBIG: Errno.FBIG,
    host.EILSEQ: Errno.ILSEQ,
    host.EINTR: Errno.INTR,
    host.EINVAL: Errno.INVAL,
    host.EISDIR: Errno.ISDIR,
    host.ELOOP: Errno.LOOP,
    host.EMFILE: Errno.MFILE,
    host.EMLINK: Errno.MLINK,
    host.ENAMETOOLONG: Errno.NAMETOOLONG,
    host.ENFILE: Errno.NFILE,
    host.ENOENT: Errno.NOENT,
    host.ENOMEM: Errno.NOMEM,
    host.ENOSPC: Errno.NOSPC,
    host.ENOTDIR: Errno.NOTDIR,
    host.ENOTEMPTY: Errno.NOTEMPTY,
    host.EOPNOTSUPP: Errno.NOTSUP,
    host.ENXIO: Errno.NXIO,
    host.EOVERFLOW: Errno.OVERFLOW,
    host.EPERM: Errno.PERM,
    host.EROFS: Errno.ROFS,
    host.ESPIPE: Errno.SPIPE,
    host.ETXTBSY: Errno.TXTBSY,
    host.EXDEV: Errno.XDEV,
}


class Failure(Exception):
    """A function's answer, raised.

    Args:
        errno: What the guest gets.
    """

    def __init__(self, errno: Errno) -> None:
        super().__init__(errno)
        self.errno = errno


class Ended(Exception):
    """The run is over: it left, went over a cap, was called off, or waited past its deadline."""


def errno_of(error: OSError) -> Errno:
    """Return WASI's number for an error of a system call.

    Example:
        >>> errno_of(FileNotFoundError(host.ENOENT, "gone")).name
        'NOENT'
    """
    return _OF_HOST.get(error.errno or 0, Errno.IO)


class Kind(IntEnum):
    """What a descriptor or a name stands for."""

    UNKNOWN = 0
    BLOCK_DEVICE = 1
    CHARACTER_DEVICE = 2
    DIRECTORY = 3
    REGULAR_FILE = 4
    SOCKET = 6
    SYMBOLIC_LINK = 7


_KINDS: Final[Mapping[int, Kind]] = {
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.REGULAR_FILE,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFLNK: Kind.SYMBOLIC_LINK,
}


def kind_of(mode: int) -> Kind:
    """Return what the mode of a file says that it is."""
    return _KINDS.get(stat.S_IFMT(mode), Kind.UNKNOWN)


class Right:
    """Rights of descriptors, one bit each, in the order of the specification."""

    FD_DATASYNC: Final = 1 << 0
    FD_READ: Final = 1 << 1
    FD_SEEK: Final = 1 << 2
    FD_FDSTAT_SET_FLAGS: Final = 1 << 3
    FD_SYNC: Final = 1 << 4
    FD_TELL: Final = 1 << 5
    FD_WRITE: Final = 1 << 6
    FD_ADVISE: Final = 1 << 7
    FD_ALLOCATE: Final = 1 << 8
    PATH_CREATE_DIRECTORY: Final = 1 << 9
    PATH_CREATE_FILE: Final = 1 << 10
    PATH_LINK_SOURCE: Final = 1 << 11
    PATH_LINK_TARGET: Final = 1 << 12
    PATH_OPEN: Final = 1 << 13
    FD_READDIR: Final = 1 << 14
    PATH_READLINK: Final = 1 << 15
    PATH_RENAME_SOURCE: Final = 1 << 16
    PATH_RENAME_TARGET: Final = 1 << 17
    PATH_FILESTAT_GET: Final = 1 << 18
    PATH_FILESTAT_SET_SIZE: Final = 1 << 19
    PATH_FILESTAT_SET_TIMES: Final = 1 << 20
    FD_FILESTAT_GET: Final = 1 << 21
    FD_FILESTAT_SET_SIZE: Final = 1 << 22
    FD_FILESTAT_SET_TIMES: Final = 1 << 23
    PATH_SYMLINK: Final = 1 << 24
    PATH_REMOVE_DIRECTORY: Final = 1 << 25
    PATH_UNLINK_FILE: Final = 1 << 26
    POLL_FD_READWRITE: Final = 1 << 27


FILE_RIGHTS: Final = (
    Right.FD_DATASYNC
    | Right.FD_READ
    | Right.FD_SEEK
    | Right.FD_FDSTAT_SET_FLAGS
    | Right.FD_SYNC
    | Right.FD_TELL
    | Right.FD_WRITE
    | Right.FD_ADVISE
    | Right.FD_ALLOCATE
    | Right.FD_FILESTAT_GET
    | Right.FD_FILESTAT_SET_SIZE
    | Right.FD_FILESTAT_SET_TIMES
    | Right.POLL_FD_READWRITE
)
"""All that can be done with an open file."""
DIRECTORY_RIGHTS: Final = (
    Right.FD_FDSTAT_SET_FLAGS
    | Right.FD_SYNC
    | Right.FD_DATASYNC
    | Right.PATH_CREATE_DIRECTORY
    | Right.PATH_CREATE_FILE
    | Right.PATH_LINK_SOURCE
    | Right.PATH_LINK_TARGET
    | Right.PATH_OPEN
    | Right.FD_READDIR
    | Right.PATH_READLINK
    | Right.PATH_RENAME_SOURCE
    | Right.PATH_RENAME_TARGET
    | Right.PATH_FILESTAT_GET
    | Right.PATH_FILESTAT_SET_SIZE
    | Right.PATH_FILESTAT_SET_TIMES
    | Right.FD_FILESTAT_GET
    | Right.FD_FILESTAT_SET_TIMES
    | Right.PATH_SYMLINK
    | Right.PATH_REMOVE_DIRECTORY
    | Right.PATH_UNLINK_FILE
    | Right.POLL_FD_READWRITE
)
"""All that can be done with, and in, an open folder."""
WRITING: Final = (
    Right.FD_DATASYNC | Right.FD_WRITE | Right.FD_ALLOCATE | Right.FD_FILESTAT_SET_SIZE | Right.FD_FILESTAT_SET_TIMES
)
"""The rights of an open file that change it."""

SYMLINK_FOLLOW: Final = 1
OPEN_CREATE, OPEN_DIRECTORY, OPEN_EXCLUSIVE, OPEN_TRUNCATE = 1, 2, 4, 8
FD_APPEND, FD_DSYNC, FD_NONBLOCK, FD_RSYNC, FD_SYNC = 1, 2, 4, 8, 16
SET_ATIM, SET_ATIM_NOW, SET_MTIM, SET_MTIM_NOW = 1, 2, 4, 8
ABSTIME: Final = 1

IOVEC: Final = struct.Struct("<II")
FDSTAT: Final = struct.Struct("<BxHxxxxQQ")
FILESTAT: Final = struct.Struct("<QQB7xQQQQQ")
DIRENT: Final = struct.Struct("<QQIB3x")
PRESTAT: Final = struct.Struct("<B3xI")
SUBSCRIPTION: Final = struct.Struct("<QB7xI4xQQH6x")
EVENT: Final = struct.Struct("<QHB5xQH6x")
U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")


def filestat(status: os.stat_result) -> bytes:
    """Lay out what is known of a file."""
    return FILESTAT.pack(
        status.st_dev & (1 << 64) - 1,
        status.st_ino,
        kind_of(status.st_mode),
        status.st_nlink,
        status.st_size,
        max(0, status.st_atime_ns),
        max(0, status.st_mtime_ns),
        max(0, status.st_ctime_ns),
    )


def signed(number: int) -> int:
    """Read the bits of an unsigned 64-bit number as a signed one.

    Example:
        >>> signed((1 << 64) - 2)
        -2
    """
    return number - (1 << 64) if number >= 1 << 63 else number


FUNCTIONS: Final = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "ili",
    "fd_advise": "illi",
    "fd_allocate": "ill",
    "fd_close": "i",
    "fd_datasync": "i",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_fdstat_set_rights": "ill",
    "fd_filestat_get": "ii",
    "fd_filestat_set_size": "il",
    "fd_filestat_set_times": "illi",
    "fd_pread": "iiili",
    "fd_prestat_get": "ii",
    "fd_prestat_dir_name": "iii",
    "fd_pwrite": "iiili",
    "fd_read": "iiii",
    "fd_readdir": "iiili",
    "fd_renumber": "ii",
    "fd_seek": "ilii",
    "fd_sync": "i",
    "fd_tell": "ii",
    "fd_write": "iiii",
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiilli",
    "path_link": "iiiiiii",
    "path_open": "iiiiillii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
    "poll_oneoff": "iiii",
    "proc_exit": "i",
    "proc_raise": "i",
    "random_get": "ii",
    "sched_yield": "",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}
"""Parameters of every function: i is i32, l is i64. All but ``proc_exit`` return an errno."""
