"""What is done by path: the ``path_`` functions, each after the guard has been asked."""

from __future__ import annotations

import fcntl
import os
import stat
from typing import Final

from runvisor.actors.jail import kernel
from runvisor.actors.wasm.fastpath import Memory
from runvisor.actors.wasm.wasi.abi import (
    DIRECTORY_RIGHTS,
    FD_NONBLOCK,
    FILE_RIGHTS,
    OPEN_CREATE,
    OPEN_DIRECTORY,
    OPEN_EXCLUSIVE,
    OPEN_TRUNCATE,
    SYMLINK_FOLLOW,
    U32,
    WRITING,
    Errno,
    Failure,
    Kind,
    Right,
    filestat,
)
from runvisor.actors.wasm.wasi.descriptors import Descriptor, Directory, File
from runvisor.actors.wasm.wasi.files import host_flags, times
from runvisor.actors.wasm.wasi.walk import ONE_NAME, Place, text_at, walk
from runvisor.actors.wasm.wasi.world import World

_OPEN_FLAGS: Final = OPEN_CREATE | OPEN_DIRECTORY | OPEN_EXCLUSIVE | OPEN_TRUNCATE
_NEW_FILE_MODE: Final = 0o666
_NEW_FOLDER_MODE: Final = 0o777


def path_open(
    world: World,
    memory: Memory,
    number: int,
    lookup: int,
    at: int,
    size: int,
    how: int,
    rights: int,
    inheriting: int,
    flags: int,
    out: int,
) -> int:
    """Open a file or a folder. Rights beyond what the folder passes on are left out, not refused."""
    folder = world.table.directory(number, Right.PATH_OPEN)
    if how & ~_OPEN_FLAGS:
        return Errno.INVAL
    if how & OPEN_CREATE:
        folder.require(Right.PATH_CREATE_FILE)
    if how & OPEN_TRUNCATE:
        folder.require(Right.PATH_FILESTAT_SET_SIZE)
    world.table.check_room()
    memory.write(out, bytes(4))
    with walk(world, folder, text_at(memory, at, size), "path_open", follow=bool(lookup & SYMLINK_FOLLOW)) as place:
        opened = _open(world, place, how, rights & folder.inheriting, flags)
    opened.inheriting = inheriting & folder.inheriting
    memory.write(out, U32.pack(world.table.add(opened)))
    return Errno.SUCCESS


def _open(world: World, place: Place, how: int, rights: int, flags: int) -> Descriptor:
    if how & OPEN_DIRECTORY or place.wants_folder or place.name == ".":
        return _open_folder(world, place, how, rights)
    mode = _mode(place)
    if mode is not None and stat.S_ISDIR(mode):
        if how & OPEN_CREATE and how & OPEN_EXCLUSIVE:
            raise Failure(Errno.EXIST)
        if how & (OPEN_CREATE | OPEN_TRUNCATE):
            raise Failure(Errno.ISDIR)
        return _open_folder(world, place, how, rights)
    return _open_file(world, place, how, rights, flags)


def _open_folder(world: World, place: Place, how: int, rights: int) -> Directory:
    if how & OPEN_CREATE:
        raise Failure(Errno.INVAL if how & OPEN_DIRECTORY else Errno.ISDIR)
    if rights & Right.FD_WRITE:
        raise Failure(Errno.ISDIR)
    if not world.guard.may_enter(place.path):
        mode = _mode(place)
        if mode is not None and not stat.S_ISDIR(mode) and world.guard.may_see(place.path):
            raise Failure(Errno.NOTDIR)
        raise _refuse(world, "path_open", place, "the folder is not granted")
    fd = kernel.openat2(place.fd, place.name, os.O_RDONLY | os.O_DIRECTORY, ONE_NAME)
    return Directory(Kind.DIRECTORY, rights & DIRECTORY_RIGHTS, 0, fd)


def _open_file(world: World, place: Place, how: int, rights: int, flags: int) -> File:
    writes = bool(rights & Right.FD_WRITE)
    if writes or how & (OPEN_CREATE | OPEN_TRUNCATE):
        _check_write(world, "path_open", place)
    elif not world.guard.may_read(place.path):
        raise _refuse(world, "path_open", place, "it may not be read")
    wanted = host_flags(flags) | os.O_NONBLOCK | os.O_NOCTTY
    wanted |= (os.O_RDWR if rights & Right.FD_READ else os.O_WRONLY) if writes else os.O_RDONLY
    if how & OPEN_CREATE:
        wanted |= os.O_CREAT
    if how & OPEN_EXCLUSIVE:
        wanted |= os.O_EXCL
    if how & OPEN_TRUNCATE and not writes:  # Linux leaves open what that does to a file open for reading
        wanted = (wanted & ~os.O_ACCMODE) | os.O_RDWR
    if how & OPEN_TRUNCATE:
        wanted |= os.O_TRUNC
    fd = kernel.openat2(place.fd, place.name, wanted, ONE_NAME, _NEW_FILE_MODE if how & OPEN_CREATE else 0)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Failure(Errno.NOTCAPABLE)
    if not flags & FD_NONBLOCK:  # opened so, that no pipe in a file's place can hold the run up
        fcntl.fcntl(fd, fcntl.F_SETFL, wanted & ~os.O_NONBLOCK)
    if not world.guard.may_write(place.path):
        rights &= ~WRITING
    return File(Kind.REGULAR_FILE, rights & FILE_RIGHTS, 0, fd)


def path_create_directory(world: World, memory: Memory, number: int, at: int, size: int) -> int:
    """Make a folder."""
    folder = world.table.directory(number, Right.PATH_CREATE_DIRECTORY)
    with walk(world, folder, text_at(memory, at, size), "path_create_directory", follow=False) as place:
        _check_folder(world, "path_create_directory", place)
        os.mkdir(place.name, _NEW_FOLDER_MODE, dir_fd=place.fd)
    return Errno.SUCCESS


def path_remove_directory(world: World, memory: Memory, number: int, at: int, size: int) -> int:
    """Remove an empty folder."""
    folder = world.table.directory(number, Right.PATH_REMOVE_DIRECTORY)
    with walk(world, folder, text_at(memory, at, size), "path_remove_directory", follow=False) as place:
        _check_folder(world, "path_remove_directory", place)
        os.rmdir(place.named, dir_fd=place.fd)
    return Errno.SUCCESS


def path_unlink_file(world: World, memory: Memory, number: int, at: int, size: int) -> int:
    """Remove a file or a link."""
    folder = world.table.directory(number, Right.PATH_UNLINK_FILE)
    with walk(world, folder, text_at(memory, at, size), "path_unlink_file", follow=False) as place:
        if place.name == "." or _is_folder(place):
            return Errno.ISDIR
        _check_write(world, "path_unlink_file", place)
        os.unlink(place.named, dir_fd=place.fd)
    return Errno.SUCCESS


def path_filestat_get(world: World, memory: Memory, number: int, lookup: int, at: int, size: int, out: int) -> int:
    """Say what is known of a file."""
    folder = world.table.directory(number, Right.PATH_FILESTAT_GET)
    with walk(
        world, folder, text_at(memory, at, size), "path_filestat_get", follow=bool(lookup & SYMLINK_FOLLOW)
    ) as place:
        _check_sight(world, "path_filestat_get", place)
        memory.write(out, filestat(os.stat(place.named, dir_fd=place.fd, follow_symlinks=False)))
    return Errno.SUCCESS


def path_filestat_set_times(
    world: World,
    memory: Memory,
    number: int,
    lookup: int,
    at: int,
    size: int,
    accessed: int,
    modified: int,
    flags: int,
) -> int:
    """Set the times of a file or folder."""
    folder = world.table.directory(number, Right.PATH_FILESTAT_SET_TIMES)
    with walk(
        world, folder, text_at(memory, at, size), "path_filestat_set_times", follow=bool(lookup & SYMLINK_FOLLOW)
    ) as place:
        _check_change(world, "path_filestat_set_times", place)
        now = os.stat(place.named, dir_fd=place.fd, follow_symlinks=False)
        wanted = times(world, now, accessed, modified, flags)
        os.utime(place.name, ns=wanted, dir_fd=place.fd, follow_symlinks=False)
    return Errno.SUCCESS


def path_link(
    world: World,
    memory: Memory,
    number: int,
    lookup: int,
    at: int,
    size: int,
    new_number: int,
    new_at: int,
    new_size: int,
) -> int:
    """Give a file a second name; both must be writable, for one can be written by the other."""
    folder = world.table.directory(number, Right.PATH_LINK_SOURCE)
    new_folder = world.table.directory(new_number, Right.PATH_LINK_TARGET)
    if lookup & SYMLINK_FOLLOW:
        return Errno.INVAL
    old_path, new_path = text_at(memory, at, size), text_at(memory, new_at, new_size)
    with (
        walk(world, folder, old_path, "path_link", follow=False) as old,
        walk(world, new_folder, new_path, "path_link", follow=False) as new,
    ):
        _check_write(world, "path_link", old)
        _check_write(world, "path_link", new)
        os.link(old.named, new.named, src_dir_fd=old.fd, dst_dir_fd=new.fd, follow_symlinks=False)
    return Errno.SUCCESS


def path_rename(
    world: World, memory: Memory, number: int, at: int, size: int, new_number: int, new_at: int, new_size: int
) -> int:
    """Give a file or folder another name."""
    folder = world.table.directory(number, Right.PATH_RENAME_SOURCE)
    new_folder = world.table.directory(new_number, Right.PATH_RENAME_TARGET)
    old_path, new_path = text_at(memory, at, size), text_at(memory, new_at, new_size)
    with (
        walk(world, folder, old_path, "path_rename", follow=False) as old,
        walk(world, new_folder, new_path, "path_rename", follow=False) as new,
    ):
        check = _check_folder if _is_folder(old) else _check_write
        check(world, "path_rename", old)
        check(world, "path_rename", new)
        os.rename(old.named, new.named, src_dir_fd=old.fd, dst_dir_fd=new.fd)
    return Errno.SUCCESS


def path_symlink(
    world: World, memory: Memory, target_at: int, target_size: int, number: int, at: int, size: int
) -> int:
    """Make a link; what it holds is walked like any path when it is used, and may not be absolute."""
    folder = world.table.directory(number, Right.PATH_SYMLINK)
    target = text_at(memory, target_at, target_size)
    with walk(world, folder, text_at(memory, at, size), "path_symlink", follow=False) as place:
        if target.startswith("/"):
            world.deny("path_symlink", place.path, "it would lead to an absolute path")
            return Errno.NOTCAPABLE
        _check_write(world, "path_symlink", place)
        os.symlink(target, place.named, dir_fd=place.fd)
    return Errno.SUCCESS


def path_readlink(world: World, memory: Memory, number: int, at: int, size: int, out: int, room: int, used: int) -> int:
    """Give what a link holds, cut to the room there is."""
    folder = world.table.directory(number, Right.PATH_READLINK)
    with walk(world, folder, text_at(memory, at, size), "path_readlink", follow=False) as place:
        _check_sight(world, "path_readlink", place)
        target = os.readlink(place.named, dir_fd=place.fd)
    data = os.fsencode(target)[:room]
    memory.write(out, data)
    memory.write(used, U32.pack(len(data)))
    return Errno.SUCCESS


def _mode(place: Place) -> int | None:
    try:
        return os.stat(place.name, dir_fd=place.fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _is_folder(place: Place) -> bool:
    mode = _mode(place)
    return mode is not None and stat.S_ISDIR(mode)


def _check_write(world: World, operation: str, place: Place) -> None:
    if not world.guard.may_write(place.path):
        raise _refuse(world, operation, place, "it may not be written")


def _check_folder(world: World, operation: str, place: Place) -> None:
    if not world.guard.may_make_folder(place.path):
        raise _refuse(world, operation, place, "nothing in it may be written")


def _check_change(world: World, operation: str, place: Place) -> None:
    if _is_folder(place):
        _check_folder(world, operation, place)
    else:
        _check_write(world, operation, place)


def _check_sight(world: World, operation: str, place: Place) -> None:
    if not world.guard.may_see(place.path):
        raise _refuse(world, operation, place, "it may not be read")


def _refuse(world: World, operation: str, place: Place, reason: str) -> Failure:
    world.deny(operation, place.path, reason)
    return Failure(Errno.ACCES)
