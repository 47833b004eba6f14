"""The files of one execution: what its grant shows it, and what it may leave on the host.

A literal file or a whole folder is bound read-only where this user may make
mounts, else copied. A pattern is staged: what matches is copied into the
scratch, within ``disk_bytes``. What may be written is a part of the scratch as
well, and goes to the host after a run that ended well: regular files only,
each whole or not at all.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from runvisor.actors.jail import kernel, staging
from runvisor.actors.jail.mounts import View
from runvisor.policies.errors import InvalidPermissions
from runvisor.policies.globs import PathPattern
from runvisor.policies.permissions import Filesystem

_PRIVATE_MOUNT: Final = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_OURS: Final = ("/proc", "/sys", "/dev", "/in", "/out", "/.old")
_MAX_PLACES: Final = 32
MAX_FILES: Final = 10_000


@dataclass(slots=True)
class _Place:
    """A folder that is a part of the guest's scratch, shown at its host path."""

    source_fd: int
    reads: list[PathPattern] = field(default_factory=list)
    writes: list[PathPattern] = field(default_factory=list)
    known: dict[str, staging.Stamp] = field(default_factory=dict)


class GrantedFiles:
    """Opens what a grant names, before the child is made.

    Args:
        grant: Absolute patterns.
        may_bind: This process may make mounts on the host (it is root).

    Raises:
        InvalidPermissions: A pattern names nothing, leads through a link, or is not ours to give.
    """

    def __init__(self, grant: Filesystem, *, may_bind: bool) -> None:
        self._bound: dict[str, int] = {}
        self._places: dict[str, _Place] = {}
        try:
            for index, text in enumerate(grant.write):
                self._add_writable(PathPattern.parse(text, where := f"filesystem.write[{index}]"), where)
            for index, text in enumerate(grant.read):
                self._add_readable(PathPattern.parse(text, where := f"filesystem.read[{index}]"), where, may_bind)
            if len(self._bound) + len(self._places) > _MAX_PLACES:
                raise InvalidPermissions(f"more than {_MAX_PLACES} places are granted", "filesystem", "name fewer")
        except BaseException:
            self.close()
            raise

    @property
    def view(self) -> View:
        """What the child is to be shown; outer places come before those inside them."""
        staged = tuple((base, bool(place.writes)) for base, place in sorted(self._places.items()))
        return View(tuple(sorted(self._bound)), staged)

    @property
    def bound(self) -> list[int]:
        """The mount of each of the view's bound places."""
        return [fd for _, fd in sorted(self._bound.items())]

    def stage(self, folders: Iterable[int], disk_bytes: int) -> None:
        """Copy what is staged into the child's folders, before it runs.

        Args:
            folders: The child's folder for each of the view's staged places.
            disk_bytes: How much may be copied.

        Raises:
            DiskLimitExceeded: There is more.
        """
        room = staging.Room(MAX_FILES, disk_bytes)
        for (_, place), folder in zip(sorted(self._places.items()), folders, strict=True):
            patterns = place.reads + place.writes
            staging.copy_in(
                place.source_fd,
                folder,
                lambda path, patterns=patterns: any(pattern.matches(path) for pattern in patterns),  # type: ignore[misc]
                room,
                writable=bool(place.writes),
            )
            if place.writes:
                place.known = staging.stamps(folder)

    def publish(self, folders: Iterable[int], room: staging.Room) -> list[str]:
        """Put what a dead guest wrote where its grant says; return what was refused."""
        refused: list[str] = []
        for (base, place), folder in zip(sorted(self._places.items()), folders, strict=True):
            if not place.writes:
                continue
            found = staging.harvest(
                folder,
                lambda path, patterns=place.writes: any(p.matches(path) for p in patterns),  # type: ignore[misc]
                room,
                place.known,
            )
            refused += found.refused
            try:
                staging.publish(place.source_fd, found.files)
            except OSError as error:
                refused.append(f"{base!r}: {error.strerror}")
        return refused

    def close(self) -> None:
        """Give back every descriptor; closing twice is fine."""
        for fd in (*self._bound.values(), *(place.source_fd for place in self._places.values())):
            os.close(fd)
        self._bound.clear()
        self._places.clear()

    def _add_writable(self, pattern: PathPattern, where: str) -> None:
        if pattern.is_literal:  # one file: the folder it lies in, and nothing else there
            folder, _, name = pattern.base.rpartition("/")
            pattern = PathPattern(folder or "/", (name,))
        self._place(pattern.base, where).writes.append(pattern)

    def _add_readable(self, pattern: PathPattern, where: str, may_bind: bool) -> None:
        whole = pattern.is_literal or pattern.is_folder
        is_folder = True
        if whole:
            fd = _open(pattern.base, where)
            try:
                mode = os.fstat(fd).st_mode
                is_folder = stat.S_ISDIR(mode)
                if may_bind and _readable_by_all(mode) and self._enclosing(pattern.base) is None:
                    self._bound[pattern.base] = kernel.detached_mount(fd, _PRIVATE_MOUNT)
                    return
            finally:
                os.close(fd)
        if whole and is_folder:
            pattern = PathPattern(pattern.base, ("**",))
        elif whole:
            folder, _, name = pattern.base.rpartition("/")
            pattern = PathPattern(folder or "/", (name,))
        base = self._enclosing(pattern.base)
        if base is not None:  # what may be written there hides it: it is copied into that place
            inside = pattern.base.removeprefix(base).strip("/")
            pattern = PathPattern(base, (*(inside.split("/") if inside else ()), *pattern.names))
        self._place(pattern.base, where).reads.append(pattern)

    def _enclosing(self, path: str) -> str | None:
        """Return the innermost place for writing that a path lies in."""
        bases = [base for base, place in self._places.items() if place.writes and (path + "/").startswith(base + "/")]
        return max(bases, key=len, default=None)

    def _place(self, base: str, where: str) -> _Place:
        place = self._places.get(base)
        if place is None:
            fd = _open(base, where)
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                os.close(fd)
                raise InvalidPermissions(f"{base!r} is no folder", where)
            place = self._places[base] = _Place(fd)
        return place


def _readable_by_all(mode: int) -> bool:
    """A guest has a user id of its own: what only the owner may read has to be copied."""
    return bool(mode & stat.S_IROTH) and (stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and bool(mode & stat.S_IXOTH)))


def _open(path: str, where: str) -> int:
    if path in ("/", "/tmp") or any(path == place or path.startswith(place + "/") for place in _OURS):
        raise InvalidPermissions(f"{path!r} is the sandbox's own", where, "name a folder of yours")
    try:
        fd = staging.open_path(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            real = os.path.realpath(path)
            raise InvalidPermissions(f"{path!r} leads through a link", where, f"name {real!r} itself") from None
        raise InvalidPermissions(f"{path!r} cannot be opened: {os.strerror(error.errno or 0)}", where) from None
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        os.close(fd)
        raise InvalidPermissions(f"{path!r} is neither a file nor a folder", where)
    return fd
