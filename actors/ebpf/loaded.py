"""Programs that stay loaded in one executor, and the input that this side writes for them."""

from __future__ import annotations

import mmap
import os
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

from runvisor.actors.ebpf.agreement import BLOCK_BYTES, block_records, blocks_for
from runvisor.actors.ebpf.collected import CollectedMap
from runvisor.actors.ebpf.compiler import Artifact
from runvisor.policies.permissions import MiB
from runvisor.policies.record_answers import Answer
from runvisor.policies.record_inputs import Records
from runvisor.policies.records import RecordProgram

_MOST_BLOCKS: Final = 64
"""Blocks of one records map; longer inputs go through it in parts."""
_MOST_PROGRAMS: Final = 32
_MOST_BYTES: Final = 128 * MiB


def wanted_blocks(records: int, record_bytes: int, output_bytes: int = 0) -> int:
    """Return the size of the records map for so many records: a power of two, up to a bound."""
    return min(_MOST_BLOCKS, 1 << (blocks_for(records, record_bytes, output_bytes) - 1).bit_length())


class LoadedProgram:
    """This side of a loaded program: its number in the executor, and the map that both sides see.

    Args:
        number: What the executor calls it.
        room: How much input the map takes at once, in units of the program's kind.
        map_bytes: What to show of the map.
        map_fd: The map's descriptor; taken over.
        more_bytes: What its other maps take.
    """

    def __init__(self, number: int, room: int, map_bytes: int, map_fd: int, more_bytes: int) -> None:
        self.number = number
        self.room = room
        try:
            self._map = mmap.mmap(map_fd, _in_pages(map_bytes))
        finally:
            os.close(map_fd)
        self.total_bytes = _in_pages(map_bytes) + more_bytes
        self.view = memoryview(self._map)

    def close(self) -> None:
        """Unmap it."""
        self.view.release()
        self._map.close()


class LoadedRecords(LoadedProgram):
    """A loaded record program, its records map and, if it collects, the map for that.

    Args:
        number: What the executor calls it.
        artifact: What it was loaded from.
        blocks: Size of the maps.
        fds: Their descriptors; taken over.
    """

    def __init__(self, number: int, artifact: Artifact, blocks: int, fds: Sequence[int]) -> None:
        self.capacity = blocks * block_records(artifact.record_bytes, artifact.output_bytes)
        """Records that fit in the map at once."""
        records_fd, *collected_fds = fds
        self._written = 0
        more_bytes = artifact.state_bytes + CollectedMap.bytes_for(artifact, blocks)
        self._collected = CollectedMap(artifact, blocks, collected_fds[0]) if collected_fds else None
        super().__init__(number, blocks, self.capacity * artifact.record_bytes, records_fd, more_bytes)

    @staticmethod
    def bytes_for(artifact: Artifact, blocks: int) -> int:
        """Return what the maps of a program take."""
        return blocks * BLOCK_BYTES + artifact.state_bytes + CollectedMap.bytes_for(artifact, blocks)

    def write(self, program: RecordProgram, records: Records) -> None:
        """Put records at the front of the map, and zeros over all else that the last run left."""
        size = len(records) * program.record.size
        program.copy_records(records, self.view)
        if self._written > size:
            self.view[size : self._written] = bytes(self._written - size)
        self._written = size
        if self._collected is not None:
            self._collected.expect(len(records))

    def collect(self, answer: Answer, first: int) -> None:
        """Hand over what the program collected of the records that were written last, the first of this index."""
        if self._collected is not None:
            self._collected.hand_over(answer, first)

    def close(self) -> None:
        """Unmap the maps."""
        super().close()
        if self._collected is not None:
            self._collected.close()


class LoadedPrograms:
    """The programs of one executor, the ones used longest ago first to go."""

    def __init__(self) -> None:
        self._programs: OrderedDict[Hashable, LoadedProgram] = OrderedDict()

    def __contains__(self, artifact: object) -> bool:
        return artifact in self._programs

    def find(self, artifact: Hashable, room: int) -> LoadedProgram | None:
        """Return a loaded program whose map has so much room."""
        loaded = self._programs.get(artifact)
        if loaded is None or loaded.room < room:
            return None
        self._programs.move_to_end(artifact)
        return loaded

    def add(self, artifact: Hashable, loaded: LoadedProgram) -> None:
        """Keep a program."""
        self._programs[artifact] = loaded

    def surplus(self, artifact: Hashable, needed_bytes: int) -> Iterator[LoadedProgram]:
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


def _in_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
