"""A pool's load in memory that clients on its node map: fresh at any time, for no message.

A page of a file beside the pool's socket, in its folder of mode 0700. A reader
may meet it half written and see parts of two loads: it is a hint.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final

from runvisor.actors.runtime import Load

_LAYOUT: Final = struct.Struct("=qqqddd")
_NAME: Final = "load"


class LoadPage:
    """The pool's end. It goes with the folder that it lies in.

    Args:
        folder: The socket's.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     LoadPage(Path(folder)).write(Load(busy=2, backlog_s=0.5))
        ...     LoadReading.beside(Path(folder, "pool.sock")).now()[0] == Load(busy=2, backlog_s=0.5)
        True
    """

    def __init__(self, folder: Path) -> None:
        fd = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _LAYOUT.size)
            self._memory = mmap.mmap(fd, _LAYOUT.size)
        finally:
            os.close(fd)

    def write(self, load: Load) -> None:
        """Show a load to everybody who reads."""
        counts = load.idle, load.busy, load.waiting
        _LAYOUT.pack_into(self._memory, 0, *counts, load.backlog_s, load.turnaround_s, time.monotonic())


class LoadReading:
    """A client's end."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    @classmethod
    def beside(cls, socket: Path) -> LoadReading | None:
        """Open the page of the pool that has this socket, or None if it shows none."""
        try:
            fd = os.open(socket.with_name(_NAME), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return cls(mmap.mmap(fd, _LAYOUT.size, prot=mmap.PROT_READ))
        except (OSError, ValueError):  # it is no such page
            return None
        finally:
            os.close(fd)

    def now(self) -> tuple[Load, float]:
        """Return the load, and when it was so by the node's monotonic clock: 0 if the pool has written none."""
        idle, busy, waiting, backlog_s, turnaround_s, at = _LAYOUT.unpack_from(self._memory)
        return Load(idle, busy, waiting, backlog_s, turnaround_s=turnaround_s), at
