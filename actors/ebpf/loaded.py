"""Programs that stay loaded in one executor, and the records that this side writes for them."""

from __future__ import annotations

import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from runvisor.actors.ebpf.agreement import block_records, blocks_for
from runvisor.actors.ebpf.compiler import Artifact
from runvisor.policies.permissions import MiB
from runvisor.policies.records import RecordProgram, Records

_MOST_BLOCKS: Final = 64
"""Blocks of one records map; longer inputs go through it in parts."""
_MOST_PROGRAMS: Final = 32
_MOST_BYTES: Final = 128 * MiB


def wanted_blocks(records: int, record_bytes: int) -> int:
    """Return the size of the records map for so many records: a power of two, up to a bound."""
    return min(_MOST_BLOCKS, 1 << (blocks_for(records, record_bytes) - 1).bit_length())


class LoadedProgram:
    """This side of a loaded program: its number in the executor and its records map.

    Args:
        number: What the executor calls it.
        artifact: What it was loaded from.
        blocks: Size of the records map.
        records_fd: The map's descriptor; taken over.
    """

    def __init__(self, number: int, artifact: Artifact, blocks: int, records_fd: int) -> None:
        self.number = number
        self.capacity = blocks * block_records(artifact.record_bytes)
        """Records that fit in the map at once."""
        size = -(-self.capacity * artifact.record_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            self._map = mmap.mmap(records_fd, size)
        finally:
            os.close(records_fd)
        self.total_bytes = size + artifact.state_bytes
        self._view = memoryview(self._map)
        self._written = 0

    def write(self, program: RecordProgram, records: Records) -> None:
        """Put records at the front of the map, and zeros over what the last execution left behind them."""
        size = len(records) * program.record.size
        program.copy_records(records, self._view)
        if self._written > size:
            self._view[size : self._written] = bytes(self._written - size)
        self._written = size

    def close(self) -> None:
        """Unmap the records."""
        self._view.release()
        self._map.close()


class LoadedPrograms:
    """The programs of one executor, the ones used longest ago first to go."""

    def __init__(self) -> None:
        self._programs: OrderedDict[Artifact, LoadedProgram] = OrderedDict()

    def __contains__(self, artifact: Artifact) -> bool:
        return artifact in self._programs

    def find(self, artifact: Artifact, blocks: int) -> LoadedProgram | None:
        """Return a loaded program whose map has room for so many blocks."""
        loaded = self._programs.get(artifact)
        if loaded is None or loaded.capacity < blocks * block_records(artifact.record_bytes):
            return None
        self._programs.move_to_end(artifact)
        return loaded

    def add(self, artifact: Artifact, loaded: LoadedProgram) -> None:
        """Keep a program."""
        self._programs[artifact] = loaded

    def surplus(self, artifact: Artifact, needed_bytes: int) -> Iterator[LoadedProgram]:
        """Take away and yield what must go before ``artifact`` is loaded anew: its smaller self, and the oldest."""
        if artifact in self._programs:
            yield self._programs.pop(artifact)
        while self._programs:
            total = sum(loaded.total_bytes for loaded in self._programs.values()) + needed_bytes
            if len(self._programs) < _MOST_PROGRAMS and total <= _MOST_BYTES:
                return
            yield self._programs.popitem(last=False)[1]

    def close(self) -> None:
        """Unmap them all."""
        while self._programs:
            self._programs.popitem()[1].close()
