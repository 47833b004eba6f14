"""What is done with descriptors: the ``fd_`` functions, of files, folders and streams."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from runvisor.actors.wasm.fastpath import Memory
from runvisor.actors.wasm.wasi.abi import (
    DIRENT,
    FD_APPEND,
    FD_DSYNC,
    FD_NONBLOCK,
    FD_RSYNC,
    FD_SYNC,
    FDSTAT,
    PRESTAT,
    SET_ATIM,
    SET_ATIM_NOW,
    SET_MTIM,
    SET_MTIM_NOW,
    U32,
    U64,
    Errno,
    Failure,
    Kind,
    Right,
    filestat,
    kind_of,
    signed,
)
from runvisor.actors.wasm.wasi.ambient import REALTIME
from runvisor.actors.wasm.wasi.descriptors import Directory, Stream
from runvisor.actors.wasm.wasi.streams import read_stdin, write_output
from runvisor.actors.wasm.wasi.vectors import drain, fill, vectors
from runvisor.actors.wasm.wasi.world import World

_HOST_FLAGS: Final = (
    (FD_APPEND, os.O_APPEND),
    (FD_NONBLOCK, os.O_NONBLOCK),
    (FD_DSYNC, os.O_DSYNC),
    (FD_RSYNC, os.O_RSYNC),
    (FD_SYNC, os.O_SYNC),
)
_CHANGEABLE: Final = FD_APPEND | FD_NONBLOCK
_WHENCE: Final = (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)
_ADVICE: Final = (
    os.POSIX_FADV_NORMAL,
    os.POSIX_FADV_SEQUENTIAL,
    os.POSIX_FADV_RANDOM,
    os.POSIX_FADV_WILLNEED,
    os.POSIX_FADV_DONTNEED,
    os.POSIX_FADV_NOREUSE,
)
_MAX_ENTRIES: Final = 100_000
_ALL_TIMES: Final = SET_ATIM | SET_ATIM_NOW | SET_MTIM | SET_MTIM_NOW


def host_flags(flags: int) -> int:
    """Return the flags of open(2) that flags of a descriptor stand for.

    Raises:
        Failure: INVAL.
    """
    if flags >= FD_SYNC << 1:
        raise Failure(Errno.INVAL)
    found = 0
    for ours, theirs in _HOST_FLAGS:
        if flags & ours:
            found |= theirs
    return found


def _flags_of(fd: int) -> int:
    theirs = fcntl.fcntl(fd, fcntl.F_GETFL)
    found = 0
    for ours, flag in _HOST_FLAGS:
        if theirs & flag == flag:
            found |= ours
    return found


def fd_close(world: World, number: int) -> int:
    """Close a descriptor."""
    world.table.close(number)
    return Errno.SUCCESS


def fd_renumber(world: World, source: int, target: int) -> int:
    """Move a descriptor over another one."""
    world.table.renumber(source, target)
    return Errno.SUCCESS


def fd_fdstat_get(world: World, memory: Memory, number: int, out: int) -> int:
    """Say what a descriptor is and what may be done with it."""
    found = world.table.get(number)
    flags = _flags_of(found.fd) if found.kind is Kind.REGULAR_FILE else 0
    memory.write(out, FDSTAT.pack(found.kind, flags, found.rights, found.inheriting))
    return Errno.SUCCESS


def fd_fdstat_set_flags(world: World, number: int, flags: int) -> int:
    """Change whether writes append; what else a flag asks for cannot be changed once a file is open."""
    found = world.table.get(number)
    if isinstance(found, Stream):
        return Errno.NOTSUP
    found.require(Right.FD_FDSTAT_SET_FLAGS)
    wanted = host_flags(flags)
    if (flags ^ _flags_of(found.fd)) & ~_CHANGEABLE:
        return Errno.NOTSUP
    fcntl.fcntl(found.fd, fcntl.F_SETFL, wanted)
    return Errno.SUCCESS


def fd_fdstat_set_rights(world: World, number: int, rights: int, inheriting: int) -> int:
    """Take rights of a descriptor away; none is ever added."""
    found = world.table.get(number)
    if rights & ~found.rights or inheriting & ~found.inheriting:
        return Errno.NOTCAPABLE
    if isinstance(found, Stream):
        world.table.replace(number, found.with_rights(rights))
    else:
        found.rights, found.inheriting = rights, inheriting
    return Errno.SUCCESS


def fd_filestat_get(world: World, memory: Memory, number: int, out: int) -> int:
    """Say what is known of an open file; nothing is of a stream."""
    found = world.table.get(number)
    if isinstance(found, Stream):
        memory.write(out, bytes(64))
    else:
        found.require(Right.FD_FILESTAT_GET)
        memory.write(out, filestat(os.fstat(found.fd)))
    return Errno.SUCCESS


def fd_filestat_set_size(world: World, number: int, size: int) -> int:
    """Cut a file off, or fill it up with zeros."""
    os.ftruncate(world.table.file(number, Right.FD_FILESTAT_SET_SIZE).fd, _size(size))
    return Errno.SUCCESS


def fd_filestat_set_times(world: World, number: int, accessed: int, modified: int, flags: int) -> int:
    """Set the times of an open file or folder."""
    found = world.table.get(number)
    if isinstance(found, Stream):
        return Errno.INVAL
    found.require(Right.FD_FILESTAT_SET_TIMES)
    os.utime(found.fd, ns=times(world, os.fstat(found.fd), accessed, modified, flags))
    return Errno.SUCCESS


def times(world: World, now: os.stat_result, accessed: int, modified: int, flags: int) -> tuple[int, int]:
    """Return the times that a file is to have.

    Raises:
        Failure: INVAL.
    """
    twice = SET_ATIM | SET_ATIM_NOW, SET_MTIM | SET_MTIM_NOW
    if flags & ~_ALL_TIMES or any(flags & both == both for both in twice):
        raise Failure(Errno.INVAL)
    clock = world.ambient.now_ns(REALTIME)
    atime = accessed if flags & SET_ATIM else clock if flags & SET_ATIM_NOW else now.st_atime_ns
    mtime = modified if flags & SET_MTIM else clock if flags & SET_MTIM_NOW else now.st_mtime_ns
    if max(atime, mtime) >= 1 << 63:
        raise Failure(Errno.INVAL)
    return atime, mtime


def fd_read(world: World, memory: Memory, number: int, at: int, count: int, out: int) -> int:
    """Read from where a file or stdin is."""
    found = world.table.get(number)
    buffers = vectors(memory, at, count)
    if isinstance(found, Stream):
        total = read_stdin(world, memory, found, buffers)
    else:
        fd = world.table.file(number, Right.FD_READ).fd
        total = fill(memory, buffers, lambda size: os.read(fd, size))
    memory.write(out, U32.pack(total))
    return Errno.SUCCESS


def fd_write(world: World, memory: Memory, number: int, at: int, count: int, out: int) -> int:
    """Write where a file is, or to stdout or stderr."""
    found = world.table.get(number)
    buffers = vectors(memory, at, count)
    if isinstance(found, Stream):
        total = write_output(world, memory, found, buffers)
    else:
        fd = world.table.file(number, Right.FD_WRITE).fd
        total = drain(memory, buffers, lambda data: os.write(fd, data))
    memory.write(out, U32.pack(total))
    return Errno.SUCCESS


def fd_pread(world: World, memory: Memory, number: int, at: int, count: int, offset: int, out: int) -> int:
    """Read from a place of a file."""
    fd = world.table.file(number, Right.FD_READ | Right.FD_SEEK).fd
    place = _size(offset)

    def read(size: int) -> bytes:
        nonlocal place
        data = os.pread(fd, size, place)
        place += len(data)
        return data

    memory.write(out, U32.pack(fill(memory, vectors(memory, at, count), read)))
    return Errno.SUCCESS


def fd_pwrite(world: World, memory: Memory, number: int, at: int, count: int, offset: int, out: int) -> int:
    """Write at a place of a file."""
    fd = world.table.file(number, Right.FD_WRITE | Right.FD_SEEK).fd
    place = _size(offset)

    def write(data: bytes) -> int:
        nonlocal place
        taken = os.pwrite(fd, data, place)
        place += taken
        return taken

    memory.write(out, U32.pack(drain(memory, vectors(memory, at, count), write)))
    return Errno.SUCCESS


def fd_seek(world: World, memory: Memory, number: int, offset: int, whence: int, out: int) -> int:
    """Move to another place of a file."""
    found = world.table.file(number, 0)
    if whence >= len(_WHENCE):
        return Errno.INVAL
    # Asking where one is takes the lesser right.
    asks = signed(offset) == 0 and _WHENCE[whence] == os.SEEK_CUR
    if not (asks and found.rights & Right.FD_TELL):
        found.require(Right.FD_SEEK)
    memory.write(out, U64.pack(os.lseek(found.fd, signed(offset), _WHENCE[whence])))
    return Errno.SUCCESS


def fd_tell(world: World, memory: Memory, number: int, out: int) -> int:
    """Say where in a file one is."""
    memory.write(out, U64.pack(os.lseek(world.table.file(number, Right.FD_TELL).fd, 0, os.SEEK_CUR)))
    return Errno.SUCCESS


def fd_sync(world: World, number: int) -> int:
    """Have what was written reach its disk; what one run may write lies in memory."""
    return _sync(world, number, Right.FD_SYNC)


def fd_datasync(world: World, number: int) -> int:
    """See `fd_sync`."""
    return _sync(world, number, Right.FD_DATASYNC)


def _sync(world: World, number: int, right: int) -> int:
    found = world.table.get(number)
    if isinstance(found, Stream):
        return Errno.INVAL
    found.require(right)
    if found.kind is Kind.REGULAR_FILE:
        os.fsync(found.fd)
    return Errno.SUCCESS


def fd_advise(world: World, number: int, offset: int, size: int, advice: int) -> int:
    """Pass on what a file will be used for."""
    fd = world.table.file(number, Right.FD_ADVISE).fd
    if advice >= len(_ADVICE):
        return Errno.INVAL
    os.posix_fadvise(fd, _size(offset), _size(size), _ADVICE[advice])
    return Errno.SUCCESS


def fd_allocate(world: World, number: int, offset: int, size: int) -> int:
    """Make sure that there is room for a part of a file."""
    os.posix_fallocate(world.table.file(number, Right.FD_ALLOCATE).fd, _size(offset), _size(size))
    return Errno.SUCCESS


def fd_prestat_get(world: World, memory: Memory, number: int, out: int) -> int:
    """Say how long the name of a folder is that is open from the start."""
    memory.write(out, PRESTAT.pack(0, len(_preopen(world, number))))
    return Errno.SUCCESS


def fd_prestat_dir_name(world: World, memory: Memory, number: int, out: int, size: int) -> int:
    """Give the name of a folder that is open from the start."""
    name = _preopen(world, number)
    if size < len(name):
        return Errno.NAMETOOLONG
    memory.write(out, name)
    return Errno.SUCCESS


def fd_readdir(world: World, memory: Memory, number: int, out: int, size: int, cookie: int, used: int) -> int:
    """List a folder; the cookie is the number of the entry to go on with, and 0 reads it anew."""
    folder = world.table.directory(number, Right.FD_READDIR)
    memory.write(out + size, b"")
    if cookie == 0 or not folder.listing:
        folder.listing = _list(world, folder)
    place = 0
    for index in range(min(cookie, len(folder.listing)), len(folder.listing)):
        name, inode, kind = folder.listing[index]
        entry = DIRENT.pack(index + 1, inode, len(name), kind) + name
        part = entry[: size - place]
        memory.write(out + place, part)
        place += len(part)
        if place >= size:
            break
    memory.write(used, U32.pack(place))
    return Errno.SUCCESS


def _list(world: World, folder: Directory) -> list[tuple[bytes, int, Kind]]:
    """Read a folder; what was not granted is not in it."""
    inode = os.fstat(folder.fd).st_ino
    found = [(b".", inode, Kind.DIRECTORY), (b"..", inode, Kind.DIRECTORY)]
    base = path_of(folder)
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder.fd)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if len(found) >= _MAX_ENTRIES:
                    break
                if not world.guard.may_see(below(base, entry.name)):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                    name = entry.name.encode()
                except (OSError, UnicodeEncodeError):  # gone meanwhile, or no name that a guest can say
                    continue
                found.append((name, status.st_ino, kind_of(status.st_mode)))
    finally:
        os.close(fd)
    found[2:] = sorted(found[2:])  # in the order of names: a disk's own differs from run to run
    return found


def path_of(folder: Directory) -> str:
    """Return where an open folder is now, as the process's root has it (proc(5))."""
    return str(Path(f"/proc/self/fd/{folder.fd}").readlink())


def below(folder: str, name: str) -> str:
    """Return the path of a name in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def _preopen(world: World, number: int) -> bytes:
    found = world.table.get(number)
    if not isinstance(found, Directory) or found.preopen is None:
        raise Failure(Errno.BADF)
    return found.preopen


def _size(number: int) -> int:
    if number >= 1 << 63:
        raise Failure(Errno.INVAL)
    return number
