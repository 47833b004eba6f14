"""Small objects in one stretch of memory, so that a zygote can keep them in huge pages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

_ARENA_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 448
_HEADER_BYTES: Final = 33


@contextlib.contextmanager
def contiguous_objects(size_bytes: int) -> Iterator[None]:
    """Let the small objects that are made in this context lie together.

    CPython takes memory for them an arena at a time (see "The pymalloc
    allocator" in its C-API manual). The shared libraries that imports map in
    between would scatter the arenas, none of them large enough for a huge page.
    So that many are taken at once, and a few objects in each keep it until the
    end; what is not used by then goes back to the kernel.

    Args:
        size_bytes: About how much the objects will take. If it is less than enough, the rest lies scattered.
    """
    # A list that grew would be mapped anew again and again, in between the arenas.
    blocks: list[bytes | None] = [None] * (size_bytes // _BLOCK_BYTES)
    for number in range(len(blocks)):
        blocks[number] = bytes(_BLOCK_BYTES - _HEADER_BYTES)
    kept = blocks[:: _ARENA_BYTES // _BLOCK_BYTES // 2]
    del blocks
    yield
    del kept
