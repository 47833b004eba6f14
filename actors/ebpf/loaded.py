"""Programs that stay loaded in one executor, and the input that this side writes for them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

from runvisor.actors.ebpf.agreement import BLOCK_BYTES, block_records, blocks_for
from runvisor.actors.ebpf.collected import CollectedMap
from runvisor.actors.ebpf.compiler import Artifact
from runvisor.actors.ebpf.shared_map import SharedMap
from runvisor.policies.permissions import MiB
from runvisor.policies.record_answers import Answer
from runvisor.policies.record_inputs import Records
from runvisor.policies.records import RecordProgram

_MOST_BLOCKS: Final = 16
"""Blocks of one records map: 8 MiB, which stay in the third-level cache. Longer inputs go through it in parts."""
_PARTS: Final = 8
"""Parts of a map in use at once: while the program runs over one, the next ones are written."""
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

    Raises:
        ProtocolError: The descriptor is not a map's.
    """

    def __init__(self, number: int, room: int, map_bytes: int, map_fd: int, more_bytes: int) -> None:
        self.number = number
        self.room = room
        self._map = SharedMap(map_fd, map_bytes)
        self.total_bytes = self._map.size + more_bytes
        self.view = self._map.view

    def close(self) -> None:
        """Unmap it."""
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
        self._record_bytes = artifact.record_bytes
        self._block_records = block_records(artifact.record_bytes, artifact.output_bytes)
        self.capacity = blocks * self._block_records
        """Records that fit in the map at once."""
        self.part = max(1, blocks // _PARTS) * self._block_records
        """Records that are written while the program runs over those before them."""
        records_fd, *collected_fds = fds
        self._written = 0
        more_bytes = artifact.state_bytes + CollectedMap.bytes_for(artifact, blocks)
        try:
            super().__init__(number, blocks, self.capacity * artifact.record_bytes, records_fd, more_bytes)
        except BaseException:
            for fd in collected_fds:
                os.close(fd)
            raise
        self._collected = CollectedMap(artifact, blocks, collected_fds[0]) if collected_fds else None

    @staticmethod
    def bytes_for(artifact: Artifact, blocks: int) -> int:
        """Return what the maps of a program take."""
        return blocks * BLOCK_BYTES + artifact.state_bytes + CollectedMap.bytes_for(artifact, blocks)

    def clear(self, records: int) -> None:
        """Begin an execution: put zeros over what the last one left where this one's records will not be.

        Args:
            records: How many will be written, all parts together.
        """
        size = min(records, self.capacity) * self._record_bytes
        if self._written > size:
            self.view[size : self._written] = bytes(self._written - size)
        self._written = size
        if self._collected is not None:
            self._collected.clear()

    def write(self, program: RecordProgram, records: Records, at: int) -> int:
        """Put one part of the records into the map.

        Args:
            program: Says how they lie there.
            records: What fits behind ``at``.
            at: Index of the first one in the map, a multiple of a block.

        Returns:
            The block that holds the first one.
        """
        program.copy_records(records, self.view[at * self._record_bytes :])
        block = at // self._block_records
        if self._collected is not None:
            self._collected.expect(block, len(records))
        return block

    def collect(self, answer: Answer, first: int) -> None:
        """Hand over what the program collected of the part that was written longest ago.

        Args:
            answer: Takes it.
            first: Index of the part's first record in the execution.
        """
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
