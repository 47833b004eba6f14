"""What a record program collects, seen from this side: marks and outputs in a map that both sides share."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import numpy as np

from runvisor.actors.ebpf.agreement import block_records
from runvisor.actors.ebpf.compiler import Artifact
from runvisor.policies.record_answers import Answer


class CollectedMap:
    """The map of marks and outputs of one loaded program, zeroed before each run.

    Each block of it holds a mark for each of its records, then their outputs.

    Args:
        artifact: What was loaded.
        blocks: Size of the map.
        fd: Its descriptor; taken over.
    """

    def __init__(self, artifact: Artifact, blocks: int, fd: int) -> None:
        self._block = block_records(artifact.record_bytes, artifact.output_bytes)
        self._output_bytes = artifact.output_bytes
        self.size = self.bytes_for(artifact, blocks)
        try:
            self._map = mmap.mmap(fd, -(-self.size // mmap.PAGESIZE) * mmap.PAGESIZE)
        finally:
            os.close(fd)
        self._view = memoryview(self._map)
        self._noted = 0

    @staticmethod
    def bytes_for(artifact: Artifact, blocks: int) -> int:
        """Return what the map of a program takes."""
        if not artifact.collects:
            return 0
        return blocks * block_records(artifact.record_bytes, artifact.output_bytes) * (1 + artifact.output_bytes)

    def expect(self, records: int) -> None:
        """Make ready for a run over so many records: zero all that the run before it may have written."""
        for _, marks, outputs in self._parts():
            np.frombuffer(marks, np.uint8).fill(0)
            np.frombuffer(outputs, np.uint8).fill(0)
        self._noted = records

    def hand_over(self, answer: Answer, first: int) -> None:
        """Hand over what came of the records of the last run.

        Args:
            answer: Takes it.
            first: Index of the first of them in the execution.
        """
        for done, marks, outputs in self._parts():
            answer.take(first + done, marks, outputs)

    def close(self) -> None:
        """Unmap it."""
        self._view.release()
        self._map.close()

    def _parts(self) -> Iterator[tuple[int, memoryview, memoryview]]:
        """Yield, block by block, how many records lie before it, and the marks and outputs of those in it."""
        for done in range(0, self._noted, self._block):
            here = min(self._block, self._noted - done)
            marks = done * (1 + self._output_bytes)
            outputs = marks + self._block
            yield done, self._view[marks : marks + here], self._view[outputs : outputs + here * self._output_bytes]
