"""What a guest's descriptors stand for, and the table of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from runvisor.actors.wasm.wasi.abi import DIRECTORY_RIGHTS, FILE_RIGHTS, Errno, Failure, Kind, Right

MAX_OPEN: Final = 200
"""Descriptors of one run; its process may have 256, and needs some itself."""
_FIRST_OWN: Final = 3


@dataclass(slots=True, eq=False)
class Descriptor:
    """An open thing. Never shared by two runs, but for the streams, which have no state of their own."""

    kind: Kind
    rights: int
    inheriting: int = 0
    """The rights that what is opened through it may have at most."""
    fd: int = -1
    """The host's descriptor of a file or a folder."""

    def require(self, rights: int) -> None:
        """Check that something may be done with it.

        Raises:
            Failure: NOTCAPABLE.
        """
        if rights & ~self.rights:
            raise Failure(Errno.NOTCAPABLE)

    def close(self) -> None:
        """Give the host's descriptor back; closing twice is fine."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


@dataclass(slots=True, eq=False)
class Stream(Descriptor):
    """One of the three standard streams: no terminal, so that C libraries buffer their output."""

    number: int = 0

    def with_rights(self, rights: int) -> Stream:
        """Return the same with fewer rights."""
        return Stream(self.kind, rights, 0, -1, self.number)


@dataclass(slots=True, eq=False)
class File(Descriptor):
    """An open regular file; its place is the kernel's to keep."""


@dataclass(slots=True, eq=False)
class Directory(Descriptor):
    """An open folder."""

    preopen: bytes | None = None
    """The name under which the guest finds it, if it was open from the start."""
    listing: list[tuple[bytes, int, Kind]] = field(default_factory=list)
    """Name, inode and kind of each entry, as when it was last read from its beginning."""

    @classmethod
    def opened(cls, fd: int, preopen: bytes | None = None) -> Directory:
        """Wrap a host's descriptor with all rights; it is owned from now on."""
        return cls(Kind.DIRECTORY, DIRECTORY_RIGHTS, DIRECTORY_RIGHTS | FILE_RIGHTS, fd, preopen)


_WAITABLE: Final = Right.POLL_FD_READWRITE | Right.FD_FILESTAT_GET
_STREAMS: Final = (
    Stream(Kind.UNKNOWN, Right.FD_READ | _WAITABLE, number=0),
    Stream(Kind.UNKNOWN, Right.FD_WRITE | _WAITABLE, number=1),
    Stream(Kind.UNKNOWN, Right.FD_WRITE | _WAITABLE, number=2),
)


class Table:
    """The descriptors of one run: a few dictionary look-ups, as long as it opens nothing."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[int, Descriptor] = dict(enumerate(_STREAMS))

    def get(self, number: int) -> Descriptor:
        """Return what is open under a number.

        Raises:
            Failure: BADF.
        """
        found = self._open.get(number)
        if found is None:
            raise Failure(Errno.BADF)
        return found

    def file(self, number: int, rights: int) -> File:
        """Return an open file.

        Raises:
            Failure: BADF, or ISDIR, SPIPE (a stream) or NOTCAPABLE.
        """
        found = self.get(number)
        if isinstance(found, Directory):
            raise Failure(Errno.ISDIR)
        if not isinstance(found, File):
            raise Failure(Errno.SPIPE)
        found.require(rights)
        return found

    def directory(self, number: int, rights: int) -> Directory:
        """Return an open folder.

        Raises:
            Failure: BADF, NOTDIR or NOTCAPABLE.
        """
        found = self.get(number)
        if not isinstance(found, Directory):
            raise Failure(Errno.NOTDIR)
        found.require(rights)
        return found

    def check_room(self) -> None:
        """Check that one more may be opened.

        Raises:
            Failure: MFILE.
        """
        if len(self._open) >= MAX_OPEN:
            raise Failure(Errno.MFILE)

    def add(self, descriptor: Descriptor) -> int:
        """Keep an open thing under the lowest free number."""
        number = _FIRST_OWN
        while number in self._open:
            number += 1
        self._open[number] = descriptor
        return number

    def replace(self, number: int, descriptor: Descriptor) -> None:
        """Keep another thing under a number that is open; what was there stays open for its holder."""
        self._open[number] = descriptor

    def close(self, number: int) -> None:
        """Close what is open under a number.

        Raises:
            Failure: BADF.
        """
        self.get(number).close()
        del self._open[number]

    def renumber(self, source: int, target: int) -> None:
        """Move an open thing to a number that is open too; what was there is closed.

        Raises:
            Failure: BADF.
        """
        moved = self.get(source)
        old = self.get(target)
        if source != target:
            old.close()
            self._open[target] = moved
            del self._open[source]

    def close_all(self) -> None:
        """Close everything; the table is empty then."""
        for descriptor in self._open.values():
            descriptor.close()
        self._open.clear()
