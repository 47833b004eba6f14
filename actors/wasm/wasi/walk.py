"""From a folder and a path to an open folder and one name in it: every path of a guest passes through here.

The invariant: a path is walked name by name with openat2 (section 2 of the
manual), each step below the folder before it, no link followed by the kernel.
Links are read and walked here like any other names, so that neither they nor
``..`` lead above the folder that the guest began in, and the path without links
is known, by which the guard decides. What an operation then touches is one
name in a folder that is open: nothing that happens to the path meanwhile
leads elsewhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from runvisor.actors.jail import kernel
from runvisor.actors.wasm.fastpath import Memory
from runvisor.actors.wasm.wasi.abi import Errno, Failure
from runvisor.actors.wasm.wasi.descriptors import Directory
from runvisor.actors.wasm.wasi.files import below, path_of
from runvisor.actors.wasm.wasi.world import World

ONE_NAME: Final = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_MAGICLINKS
_MAX_PATH_BYTES: Final = 4096
_MAX_NAME_BYTES: Final = 255
_MAX_LINKS: Final = 40
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: one name in an open folder, which need not exist."""

    fd: int
    """The folder; open as long as the walk's block."""
    name: str
    """The name in it, or ``.`` for the folder itself."""
    path: str
    """All of it, absolute and without links, in the process's root."""
    wants_folder: bool
    """The path ended with a slash."""

    @property
    def named(self) -> str:
        """The name with the slash that it was written with: the kernel knows what that means."""
        return self.name + "/" if self.wants_folder else self.name


def text_at(memory: Memory, at: int, size: int) -> str:
    """Read a path.

    Raises:
        Failure: NOENT if it is empty, NAMETOOLONG, ILSEQ if it is not UTF-8, INVAL if it holds a NUL.
    """
    if size > _MAX_PATH_BYTES:
        raise Failure(Errno.NAMETOOLONG)
    raw = memory.read(at, size)
    if not raw:
        raise Failure(Errno.NOENT)
    if b"\0" in raw:
        raise Failure(Errno.INVAL)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Failure(Errno.ILSEQ) from None


@contextmanager
def walk(world: World, folder: Directory, path: str, operation: str, *, follow: bool) -> Iterator[Place]:
    """Walk a path as far as its last name.

    Args:
        world: Whose guard is asked about each folder on the way.
        folder: Where it begins, and what it never leaves upwards.
        path: The guest's.
        operation: The function that it is for.
        follow: Whether a link as the last name is followed too.

    Raises:
        Failure: NOTCAPABLE if it leads out, ACCES if a folder on the way is not granted, LOOP,
            NAMETOOLONG.
        OSError: A folder on the way does not exist, or is none.
    """
    steps = _Steps(world, folder, operation)
    try:
        yield steps.take(path, follow=follow)
    finally:
        steps.close()


class _Steps:
    def __init__(self, world: World, folder: Directory, operation: str) -> None:
        self._world = world
        self._operation = operation
        self._fds = [folder.fd]
        self._paths = [path_of(folder)]

    def close(self) -> None:
        for fd in self._fds[1:]:
            os.close(fd)

    def take(self, path: str, *, follow: bool) -> Place:
        if path.startswith("/"):
            raise self._refuse(path, "it is absolute")
        pending = [name for name in path.split("/") if name not in ("", ".")][::-1]
        ends_open = path.endswith("/") or path.rpartition("/")[2] == "."
        links = 0
        while True:
            if not pending:
                return Place(self._fds[-1], ".", self._paths[-1], False)
            name = pending.pop()
            if name == "..":
                self._climb(path)
                continue
            if len(name.encode()) > _MAX_NAME_BYTES:
                raise Failure(Errno.NAMETOOLONG)
            is_last = not pending
            target = self._link(name) if not is_last or follow or ends_open else None
            if target is not None:
                links += 1
                if links > _MAX_LINKS:
                    raise Failure(Errno.LOOP)
                if target.startswith("/"):
                    raise self._refuse(path, "it leads through a link to an absolute path")
                pending += [part for part in target.split("/") if part not in ("", ".")][::-1]
                ends_open = ends_open or (is_last and target.endswith("/"))
            elif is_last:
                return Place(self._fds[-1], name, below(self._paths[-1], name), ends_open)
            else:
                self._enter(name)

    def _enter(self, name: str) -> None:
        path = below(self._paths[-1], name)
        if not self._world.guard.may_enter(path):
            self._world.deny(self._operation, path, "the folder is not granted")
            raise Failure(Errno.ACCES)
        self._fds.append(kernel.openat2(self._fds[-1], name, _FOLDER, ONE_NAME))
        self._paths.append(path)

    def _climb(self, path: str) -> None:
        if len(self._fds) == 1:
            raise self._refuse(path, "it leads out of its folder")
        os.close(self._fds.pop())
        self._paths.pop()

    def _link(self, name: str) -> str | None:
        """Return where a name points, or None if it is no link; granted or not, only we read it."""
        try:
            return os.readlink(name, dir_fd=self._fds[-1])
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None
            raise

    def _refuse(self, path: str, reason: str) -> Failure:
        self._world.deny(self._operation, below(self._paths[0], path.lstrip("/")), reason)
        return Failure(Errno.NOTCAPABLE)
