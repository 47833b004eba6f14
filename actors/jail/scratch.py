"""Removing what a guest left in its scratch, where that is an ordinary folder of the host.

The tree is hostile: as deep and as wide as its maker had time for, with folders
that may not be entered and links to anywhere. So nothing here recurses, no path
is ever longer than one name, and no link is followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Level:
    """A folder on the way down."""

    name: str
    inode: tuple[int, int]
    folders: list[str] = field(default_factory=list)
    """Those inside it that are still to be emptied."""


def remove(folder: str) -> None:
    """Remove a folder and all that is in it; whoever wrote there must be dead.

    Two open descriptors and no recursion are enough for any depth: the way up
    is each folder's own ``..``. What cannot be removed is left.

    Args:
        folder: Its path; nothing happens if there is none.
    """
    with contextlib.suppress(OSError):
        fd = os.open(folder, _FOLDER)
        try:
            fd = _empty(fd)
        finally:
            os.close(fd)
        Path(folder).rmdir()


def _empty(fd: int) -> int:
    """Empty an open folder; return the descriptor that is open then, which is of it unless the tree was moved."""
    way = [_unlink_files("", fd)]
    while True:
        here = way[-1]
        if here.folders:
            name = here.folders.pop()
            with contextlib.suppress(OSError):
                inner = _enter(name, fd)
                os.close(fd)
                fd = inner
                way.append(_unlink_files(name, fd))
            continue
        way.pop()
        if not way:
            return fd
        outer = os.open("..", _FOLDER, dir_fd=fd)
        os.close(fd)
        fd = outer
        if _inode(fd) != way[-1].inode:
            return fd
        with contextlib.suppress(OSError):
            os.rmdir(here.name, dir_fd=fd)


def _enter(name: str, parent: int) -> int:
    if stat.S_IMODE(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode) & stat.S_IRWXU != stat.S_IRWXU:
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
    return os.open(name, _FOLDER, dir_fd=parent)


def _unlink_files(name: str, fd: int) -> _Level:
    """Remove whatever is no folder; note the folders."""
    level = _Level(name, _inode(fd))
    with os.scandir(fd) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    level.folders.append(entry.name)
                else:
                    os.unlink(entry.name, dir_fd=fd)
    return level


def _inode(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
