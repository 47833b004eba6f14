"""What a record task answers: the count and the state, and what was asked for besides them.

An engine hands over bytes: for each record whether it was selected, and what the program
wrote to its output. They come from where guest code ran and are believed to be nothing
but bytes of the size that this side expects.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from runvisor.policies.dtypes import dtype_of, has_gaps
from runvisor.policies.errors import InvalidTask, MemoryLimitExceeded, OutputLimitExceeded, ProtocolError
from runvisor.policies.record_inputs import RecordInputs
from runvisor.policies.records import RecordProgram
from runvisor.policies.struct_values import without_gaps
from runvisor.policies.values import Value, pack

Buffer: TypeAlias = bytes | bytearray | memoryview


class Answer:
    """The answer of one execution, as its parts come in.

    Args:
        program: What runs.
        inputs: On what, and what is to come back.
        output_bytes: The largest value allowed.

    Example:
        >>> from runvisor.policies.records import parse_program
        >>> source = "int on_record(struct record *r, struct state *s) { return r->value > 5; }"
        >>> inputs = RecordInputs.of({"records": np.array([4, 9, 6], "<u4"), "return": "records"}, source)
        >>> answer = Answer(parse_program(source, inputs.records.dtype, collects=True), inputs, 1 << 20)
        >>> answer.take(0, bytes([0, 1, 1]), b"")
        >>> answer.value(2, b"")
        ({'selected': 2, 'state': {}, 'records': array([9, 6], dtype=uint32)}, 8)
    """

    def __init__(self, program: RecordProgram, inputs: RecordInputs, output_bytes: int) -> None:
        self._program = program
        self._inputs = inputs
        self._limit = output_bytes
        self._output = dtype_of(program.output) if program.output is not None and "outputs" in inputs.parts else None
        self._mask = np.zeros(len(inputs.records) if inputs.collects else 0, np.bool_)
        self._outputs: list[np.ndarray[Any, Any]] = []
        self._needed = 0

    def take(self, first: int, selected: Buffer, outputs: Buffer) -> None:
        """Take over what came of some records; nothing is kept of the buffers.

        Args:
            first: Index of the first of them.
            selected: A byte for each, zero for those that were not selected.
            outputs: The output of each, selected or not.

        Raises:
            ProtocolError: The sizes do not fit each other, or the records.
        """
        if not self._inputs.collects:  # the program has outputs, but nobody asked for them
            return
        chosen = np.frombuffer(selected, np.uint8) != 0
        mask = self._mask[first : first + len(chosen)]
        if len(mask) != len(chosen) or len(outputs) != len(chosen) * self._program.output_bytes:
            raise ProtocolError(f"{len(chosen)} marks and {len(outputs)} bytes of outputs are not those of the records")
        mask[:] = chosen
        if self._output is None:
            return
        self._needed += int(np.count_nonzero(chosen)) * self._output.itemsize
        if self._needed <= self._limit:  # beyond it, only the count goes on
            self._outputs.append(_chosen(np.frombuffer(outputs, self._output), chosen))

    def value(self, selected: object, state: object) -> tuple[dict[str, Value], int]:
        """Return the value, and how many bytes of it are arrays that were asked for.

        Args:
            selected: How many records were selected, as the engine counts; where each is
                known, their number counts.
            state: The state's bytes behind the last record.

        Raises:
            OutputLimitExceeded: It is larger than allowed; nothing was allocated for what is too large.
            ProtocolError: The engine's numbers cannot be.
        """
        program, parts, records = self._program, self._inputs.parts, self._inputs.records
        if not isinstance(selected, int) or not isinstance(state, bytes) or len(state) != program.state_bytes:
            raise ProtocolError("the engine's answer is not a count and a state")
        if not 0 <= selected <= len(records):
            raise ProtocolError(f"the engine counts {selected} of {len(records)} records")
        value = program.value(selected, state)
        base = len(pack(value)) if parts or program.widest_value > self._limit else 0
        _check(base, self._limit, "the state", "keep less state")
        if not parts:
            return value, 0
        value["selected"] = found = int(np.count_nonzero(self._mask))
        size = self._part_bytes(found)
        _check(base + size, self._limit, "the value", "return less, or send the records in chunks")
        value |= {part: self._part(part) for part in parts}
        return value, size

    def _part_bytes(self, found: int) -> int:
        sizes = {
            "indices": found * np.dtype(np.int64).itemsize,
            "mask": len(self._mask),
            "records": found * self._inputs.records.dtype.itemsize,
            "outputs": found * self._program.output_bytes,
        }
        return sum(sizes[part] for part in self._inputs.parts)

    def _part(self, part: str) -> np.ndarray[Any, Any]:
        if part == "mask":
            return self._mask
        if part == "indices":
            return np.flatnonzero(self._mask).astype(np.int64, copy=False)
        if part == "records":
            return _chosen(self._inputs.records, self._mask)
        assert self._output is not None
        parts = [part.view(_bytes_of(self._output)) for part in self._outputs] or [np.empty(0, _bytes_of(self._output))]
        outputs = (parts[0] if len(parts) == 1 else np.concatenate(parts)).view(self._output)
        # A program may have left in the padding what lay on its stack.
        return without_gaps(outputs) if has_gaps(self._output) else outputs


def _chosen(items: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the items of a mask, byte by byte: ``items[mask]`` takes fifty times as long for structured ones."""
    return items.view(_bytes_of(items.dtype)).take(np.flatnonzero(mask)).view(items.dtype)


def _bytes_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of whole items; numpy copies a structured one field by field, and garbage between them."""
    return np.dtype((np.void, dtype.itemsize))


def check_task(program: RecordProgram, inputs: RecordInputs, memory_bytes: int, output_bytes: int) -> None:
    """Refuse what cannot fit, or cannot be, before anything is allocated or compiled for it.

    Args:
        program: What is to run.
        inputs: On what.
        memory_bytes: The limit of records, state and outputs together.
        output_bytes: The limit of the value.

    Raises:
        InvalidTask: Outputs are asked for that the program does not have.
        MemoryLimitExceeded: Records, state and outputs are too large.
        OutputLimitExceeded: No value of the program is small enough.
    """
    if "outputs" in inputs.parts and program.output is None:
        raise InvalidTask(
            "the program has no outputs",
            "inputs['return']",
            "declare struct output, and on_record(struct record *r, struct state *s, struct output *o)",
        )
    count = len(inputs.records)
    needed = count * (program.record.size + program.collected_bytes) + program.state_bytes
    if needed > memory_bytes:
        what = "the records, the state and the outputs" if program.collected_bytes else "the records and the state"
        raise MemoryLimitExceeded(
            f"{what} take {needed} bytes, more than {memory_bytes}",
            "memory_bytes",
            "raise memory_bytes, or send the records in chunks",
        )
    if program.narrowest_value > output_bytes:
        _check(program.narrowest_value, output_bytes, "the state", "keep less state")
    if "mask" in inputs.parts:
        _check(count, output_bytes, "the mask", "ask for indices, or send the records in chunks")


def _check(size: int, limit: int, what: str, otherwise: str) -> None:
    if size > limit:
        raise OutputLimitExceeded(
            f"{what} takes {size} bytes as a value, more than {limit}",
            "output_bytes",
            f"raise output_bytes, or {otherwise}",
        )
