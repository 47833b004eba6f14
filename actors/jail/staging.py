"""Files into and out of a sandbox: every path passes through here.

The invariant: a path is opened name by name below a folder that is already
open, with no symbolic link followed and, on the guest's side, no mount
crossed (openat2 in section 2 of the manual). Only regular files move. What a
guest leaves is read after it is dead, so that nothing changes underfoot.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from runvisor.actors.jail import kernel
from runvisor.policies.errors import DiskLimitExceeded
from runvisor.policies.task import is_file_name

_BELOW: Final = kernel.RESOLVE_BENEATH | kernel.RESOLVE_NO_SYMLINKS | kernel.RESOLVE_NO_MAGICLINKS
_BELOW_SAME_MOUNT: Final = _BELOW | kernel.RESOLVE_NO_XDEV
_MAX_DEPTH: Final = 32
_MAX_ENTRIES: Final = 100_000
_CHUNK_BYTES: Final = 1 << 20
_MAX_NOTES: Final = 32

Stamp = tuple[int, int, int]
"""What tells that a file was changed: inode, size and time of change."""


@dataclass(slots=True)
class Room:
    """How many files and bytes may still move."""

    files: int
    bytes: int


@dataclass(slots=True)
class Harvest:
    """What was found in a folder that a guest could write."""

    files: dict[str, bytes] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def refuse(self, path: str, why: str) -> None:
        """Note what is left behind; a flood of notes is cut."""
        if len(self.refused) < _MAX_NOTES:
            self.refused.append(f"{path[:200]!r}: {why}")


def open_path(path: str) -> int:
    """Open an absolute path of the host, no part of which may be a symbolic link.

    Raises:
        OSError: It does not exist, or leads through a link (ELOOP).
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return kernel.openat2(root, path.lstrip("/") or ".", os.O_PATH, kernel.RESOLVE_NO_SYMLINKS)
    finally:
        os.close(root)


def is_empty(folder_fd: int) -> bool:
    """Say whether a folder of a scratch holds nothing; a tmpfs counts its entries in the folder's size."""
    if os.fstat(folder_fd).st_size == 0:
        return True
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder_fd)
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is None
    finally:
        os.close(fd)


def write_files(folder_fd: int, files: Mapping[str, bytes]) -> None:
    """Write files below a folder that no guest has touched yet.

    Args:
        folder_fd: The folder.
        files: Contents by relative path, checked by `is_file_name`.
    """
    for name, content in files.items():
        parent = _make_parents(folder_fd, name, _BELOW_SAME_MOUNT)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            fd = kernel.openat2(parent, name.rpartition("/")[2], flags, _BELOW_SAME_MOUNT, 0o644)
            with os.fdopen(fd, "wb") as target:
                target.write(content)
                os.fchmod(fd, 0o644)
        finally:
            os.close(parent)


def copy_in(source_fd: int, target_fd: int, wanted: Callable[[str], bool], room: Room, *, writable: bool) -> None:
    """Copy the regular files below one folder that are wanted into a folder that no guest has touched yet.

    Links and special files are passed over.

    Args:
        source_fd: A folder of the host.
        target_fd: A part of the guest's scratch.
        wanted: Says of a relative path whether it is meant.
        room: What may still be copied; counted down.
        writable: Whether the guest may change the copies.

    Raises:
        DiskLimitExceeded: There is more than fits.
    """
    for path, fd in _regular_files(source_fd, wanted, _BELOW):
        size = os.fstat(fd).st_size
        room.files -= 1
        room.bytes -= size
        if room.files < 0 or room.bytes < 0:
            os.close(fd)
            raise DiskLimitExceeded(
                "the files that are granted do not fit into the sandbox's disk",
                "disk_bytes",
                "raise disk_bytes, or grant the folder as a whole (folder/**), which is not copied",
            )
        with os.fdopen(fd, "rb") as source:
            _copy_one(source.fileno(), target_fd, path, writable=writable)


def stamps(folder_fd: int) -> dict[str, Stamp]:
    """Return what tells later which files of a folder were changed."""
    found: dict[str, Stamp] = {}
    for path, fd in _regular_files(folder_fd, lambda _: True, _BELOW_SAME_MOUNT):
        found[path] = _stamp(os.fstat(fd))
        os.close(fd)
    return found


def harvest(
    folder_fd: int, wanted: Callable[[str], bool], room: Room, known: Mapping[str, Stamp] | None = None
) -> Harvest:
    """Read what a dead guest left in a folder.

    Args:
        folder_fd: The folder behind its /out, or a staged one.
        wanted: Says of a relative path whether it may leave.
        room: What may still leave; counted down.
        known: From `stamps`, before the guest ran: what has not changed stays.
    """
    found = Harvest()
    for path, fd in _regular_files(folder_fd, lambda _: True, _BELOW_SAME_MOUNT, found.refuse):
        with os.fdopen(fd, "rb") as source:
            status = os.fstat(fd)
            if known is not None and known.get(path) == _stamp(status):
                continue
            if not is_file_name(path):
                found.refuse(path, "its name is not plain text")
            elif not wanted(path):
                found.refuse(path, "it is not among the files that may be written")
            elif room.files < 1 or status.st_size > room.bytes:
                found.refuse(path, "it is beyond what may leave the sandbox")
            else:
                content = source.read(room.bytes + 1)
                if len(content) > room.bytes:
                    found.refuse(path, "it is beyond what may leave the sandbox")
                    continue
                room.files -= 1
                room.bytes -= len(content)
                found.files[path] = content
    return found


def publish(folder_fd: int, files: Mapping[str, bytes]) -> None:
    """Put files below a folder of the host, each whole or not at all.

    They belong to whom the folder belongs. A link on the way is refused, and
    one in a file's place is replaced, not followed.

    Raises:
        OSError: One cannot be written; those before it were.
    """
    owner = os.stat(".", dir_fd=folder_fd)
    for name, content in files.items():
        parent = _make_parents(folder_fd, name, _BELOW, owner)
        temporary = f".runvisor-{secrets.token_hex(8)}"
        try:
            fd = kernel.openat2(parent, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _BELOW, 0o644)
            with os.fdopen(fd, "wb") as target:
                target.write(content)
                _give(fd, owner)
            os.rename(temporary, name.rpartition("/")[2], src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            raise
        finally:
            os.close(parent)


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _give(fd: int, owner: os.stat_result) -> None:
    if os.geteuid() == 0:
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _make_parents(
    folder_fd: int, name: str, resolve: int, owner: os.stat_result | None = None, *, mode: int = 0o755
) -> int:
    """Open the folder that a relative path lies in, making what is missing."""
    fd = os.dup(folder_fd)
    for part in name.split("/")[:-1]:
        try:
            os.mkdir(part, dir_fd=fd)
            made = True
        except FileExistsError:
            made = False
        try:
            below = kernel.openat2(fd, part, os.O_RDONLY | os.O_DIRECTORY, resolve)
        finally:
            os.close(fd)
        fd = below
        if made:
            os.fchmod(fd, mode)
            if owner is not None:
                _give(fd, owner)
    return fd


def _copy_one(source: int, target_fd: int, path: str, *, writable: bool) -> None:
    parent = _make_parents(target_fd, path, _BELOW_SAME_MOUNT, mode=0o777 if writable else 0o755)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        fd = kernel.openat2(parent, path.rpartition("/")[2], flags, _BELOW_SAME_MOUNT, 0o644)
        with os.fdopen(fd, "wb", buffering=0) as target:
            while chunk := os.read(source, _CHUNK_BYTES):
                target.write(chunk)
            os.fchmod(fd, 0o666 if writable else 0o644)
    finally:
        os.close(parent)


def _regular_files(
    folder_fd: int,
    wanted: Callable[[str], bool],
    resolve: int,
    refuse: Callable[[str, str], None] | None = None,
) -> Iterator[tuple[str, int]]:
    """Open each regular file below a folder that is wanted; the caller closes it."""
    refuse = refuse or Harvest().refuse
    left = _MAX_ENTRIES
    pending = [("", os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder_fd), 0)]
    try:
        while pending:
            prefix, fd, depth = pending.pop()
            try:
                with os.scandir(fd) as entries:
                    names = sorted(entry.name for _, entry in zip(range(left), entries, strict=False))
                left -= len(names)
                for name in names:
                    path = prefix + name
                    try:
                        kind, opened = _open_entry(fd, name, resolve)
                    except (OSError, UnicodeError) as error:
                        refuse(path, getattr(error, "strerror", None) or "its name is not plain text")
                        continue
                    if kind == stat.S_IFDIR and depth < _MAX_DEPTH:
                        pending.append((path + "/", opened, depth + 1))
                    elif kind == stat.S_IFREG and wanted(path):
                        yield path, opened
                    else:
                        os.close(opened)
                        if kind != stat.S_IFREG:
                            refuse(path, "it lies too deep" if kind == stat.S_IFDIR else "it is no regular file")
            finally:
                os.close(fd)
        if left <= 0:
            refuse("...", f"there are more than {_MAX_ENTRIES} entries")
    finally:
        for _, fd, _ in pending:
            os.close(fd)


def _open_entry(folder_fd: int, name: str, resolve: int) -> tuple[int, int]:
    """Return what kind of thing a name stands for, and it, opened for reading if it is a file or a folder."""
    pinned = kernel.openat2(folder_fd, name, os.O_PATH, resolve)
    kind = stat.S_IFMT(os.fstat(pinned).st_mode)
    if kind not in (stat.S_IFDIR, stat.S_IFREG):
        return kind, pinned
    try:
        # By its descriptor, not once more by its name: what is opened is what was looked at.
        return kind, os.open(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(pinned)
