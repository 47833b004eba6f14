"""What a record program collects, seen from this side: marks and outputs in a map that both sides share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np

from runvisor.actors.ebpf.agreement import block_records
from runvisor.actors.ebpf.compiler import Artifact
from runvisor.actors.ebpf.shared_map import SharedMap
from runvisor.policies.record_answers import Answer


class CollectedMap:
    """The map of marks and outputs of one loaded program; a run finds zeros in its part of it.

    Each block of it holds a mark for each of its records, then their outputs. It is one
    value to the verifier, which lets a program with outputs go back from any of them as
    far as the block's first mark, but not beyond the block's end: so what a run of few
    records may have written are all marks of a block, and the outputs up to its last record's.

    Args:
        artifact: What was loaded.
        blocks: Size of the map.
        fd: Its descriptor; taken over.

    Raises:
        ProtocolError: It is none.
    """

    def __init__(self, artifact: Artifact, blocks: int, fd: int) -> None:
        self._block = block_records(artifact.record_bytes, artifact.output_bytes)
        self._output_bytes = artifact.output_bytes
        self._map = SharedMap(fd, self.bytes_for(artifact, blocks))
        self._view = self._map.view
        self._noted: deque[tuple[int, int]] = deque()

    @staticmethod
    def bytes_for(artifact: Artifact, blocks: int) -> int:
        """Return what the map of a program takes."""
        if not artifact.collects:
            return 0
        return blocks * block_records(artifact.record_bytes, artifact.output_bytes) * (1 + artifact.output_bytes)

    def clear(self) -> None:
        """Zero all that runs have written and nobody has taken."""
        while self._noted:
            self._zero(*self._noted.popleft())

    def expect(self, block: int, records: int) -> None:
        """Note that a run will write here.

        Args:
            block: Where its records begin.
            records: How many they are.
        """
        self._noted.append((block, records))

    def hand_over(self, answer: Answer, first: int) -> None:
        """Hand over what came of the run that was noted first, and zero its part of the map.

        Args:
            answer: Takes it.
            first: Index of its first record in the execution.
        """
        for done, marks, outputs in self._parts(*self._noted[0]):
            answer.take(first + done, marks, outputs)
        self._zero(*self._noted.popleft())

    def close(self) -> None:
        """Unmap it."""
        self._map.close()

    def _zero(self, block: int, records: int) -> None:
        """Put zeros wherever a run over these records may have written."""
        for begin in range(0, records, self._block):
            here = min(self._block, records - begin)
            marks = (block * self._block + begin) * (1 + self._output_bytes)
            written = self._block + here * self._output_bytes if self._output_bytes else here
            np.frombuffer(self._view[marks : marks + written], np.uint8).fill(0)

    def _parts(self, block: int, records: int) -> Iterator[tuple[int, memoryview, memoryview]]:
        """Yield, block by block, how many records lie before it, and the marks and outputs of those in it."""
        for done in range(0, records, self._block):
            here = min(self._block, records - done)
            marks = (block * self._block + done) * (1 + self._output_bytes)
            outputs = marks + self._block
            yield done, self._view[marks : marks + here], self._view[outputs : outputs + here * self._output_bytes]
