"""Large inputs that lie in memory shared with the host, mapped into an isolate without a copy.

The memory of a ``WebAssembly.Memory`` begins at a page and stays where it is,
so the descriptor's pages are mapped over it (mmap(2), ``MAP_FIXED`` and
``MAP_PRIVATE``): the task reads the host's pages, and gets a copy of each
page that it writes to.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_MAP_FIXED: Final = 0x10
_FAILED: Final = ctypes.c_void_p(-1).value


@dataclass(frozen=True, slots=True)
class SharedBuffer:
    """A sealed memory file of the host."""

    fd: int
    nbytes: int

    def map_at(self, address: int) -> None:
        """Map it over memory that begins at a page and is at least as long.

        Raises:
            OSError: The kernel refuses.
        """
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        mapped = _libc.mmap(address, self.nbytes, protection, mmap.MAP_PRIVATE | _MAP_FIXED, self.fd, 0)
        if mapped == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, f"mmap: {os.strerror(number)}")

    def view(self) -> memoryview:
        """Return its content, mapped read-only."""
        memory = mmap.mmap(self.fd, self.nbytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) if self.nbytes else b""
        return memoryview(memory).toreadonly()


def received(description: Sequence[Sequence[object]] | None, fds: Sequence[int]) -> list[SharedBuffer]:
    """Return what came beside a frame.

    Args:
        description: ``[name, nbytes]`` of each, or nothing.
        fds: The descriptors, in the same order.
    """
    return [SharedBuffer(fd, int(str(size))) for (_, size), fd in zip(description or (), fds, strict=True)]
