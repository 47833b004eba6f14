"""Scattered buffers of the guest, as reads and writes name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from runvisor.actors.wasm.fastpath import Memory, OutOfBounds
from runvisor.actors.wasm.wasi.abi import IOVEC

_MAX_VECTORS: Final = 1024
_CHUNK: Final = 1 << 20
"""Bytes of one read or write of a file: a guest may name its whole memory a thousand times."""


def vectors(memory: Memory, at: int, count: int) -> list[tuple[int, int]]:
    """Return address and size of each buffer.

    Raises:
        OutOfBounds: They are too many, or the list is not all inside the memory.
    """
    if count > _MAX_VECTORS:
        raise OutOfBounds
    return list(IOVEC.iter_unpack(memory.read(at, count * IOVEC.size)))


def fill(memory: Memory, buffers: list[tuple[int, int]], read: Callable[[int], bytes]) -> int:
    """Read into buffers until one stays short; return how many bytes came."""
    total = 0
    for at, size in _chunks(buffers):
        memory.write(at + size, b"")  # refused before anything is taken from the source
        data = read(size)
        memory.write(at, data)
        total += len(data)
        if len(data) < size:
            break
    return total


def drain(memory: Memory, buffers: list[tuple[int, int]], write: Callable[[bytes], int]) -> int:
    """Write out buffers until one is not taken whole; return how many bytes went."""
    total = 0
    for at, size in _chunks(buffers):
        taken = write(memory.read(at, size))
        total += taken
        if taken < size:
            break
    return total


def _chunks(buffers: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Cut buffers into pieces, one chunk together: what is beyond it is a short read or write."""
    left = _CHUNK
    for at, size in buffers:
        yield at, min(size, left)
        left -= min(size, left)
        if left <= 0:
            return
