"""Large inputs that lie in memory shared with the host, mapped read-only."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence


def mapped(description: Sequence[Sequence[object]] | None, fds: Sequence[int]) -> list[memoryview]:
    """Map the descriptors that came with a frame, and close them.

    Args:
        description: ``[name, nbytes]`` of each, or nothing.
        fds: The descriptors, in the same order.

    Returns:
        One read-only view of each; the mapping lives as long as its view.

    Raises:
        OSError: A descriptor cannot be mapped.
    """
    views: list[memoryview] = []
    for (_, size), fd in zip(description or (), fds, strict=True):
        # Private: a sealed file may not be mapped shared where it could still be made writable (man 2 fcntl).
        memory = mmap.mmap(fd, int(str(size)), flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) if size else b""
        os.close(fd)
        views.append(memoryview(memory).toreadonly())
    return views


def size_of(description: Sequence[Sequence[object]] | None) -> int:
    """Return how many bytes the descriptors of a frame hold together."""
    return sum(int(str(size)) for _, size in description or ())
