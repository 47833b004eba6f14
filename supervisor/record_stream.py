"""A record program over more records than are in memory at once: chunk by chunk, with its state carried on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from runvisor.policies.errors import InvalidTask, RunvisorError, TimeLimitExceeded
from runvisor.policies.record_inputs import Part, Records
from runvisor.policies.records import LANGUAGE
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import OnExcess
from runvisor.policies.values import Value
from runvisor.supervisor.handle import Handle
from runvisor.supervisor.request import make_task

_PIECE_BYTES: Final = 16 * 1024 * 1024
"""Of one array that is cut into chunks here."""
_SHORTEST_S: Final = 0.001


class RecordStream(Iterator[Result]):
    """The results of a record program, one for each chunk of records; `finish` for the end alone.

    Each chunk is an execution of its own and begins with the state that the one before it
    left. A chunk is taken only when its turn has come, and nothing of it is kept.

    ``timeout_s`` counts for the executions of all chunks together, not for the time that the
    caller takes to make them; all other limits count for each chunk.

    Args:
        run: Runs one task.
        task: The program, with the permissions of the whole run.
        chunks: As for `open`.
        dtype: As for `open`.
        state: As for `open`.
        returns: As for `open`.
    """

    def __init__(
        self,
        run: Callable[[Task], Result],
        task: Task,
        chunks: Iterable[Any],
        *,
        dtype: Any = None,
        state: Value = None,
        returns: Part | Iterable[Part] = (),
    ) -> None:
        self.selected = 0
        """Records selected so far."""
        self.state: Value = {} if state is None else state
        """What the last chunk left."""
        self.records = 0
        """Records seen so far."""
        self.chunks = 0
        """Chunks done so far."""
        self._run = run
        self._task = task
        self._returns = returns if isinstance(returns, str) else list(returns)
        self._arrays = _whole_records(chunks, None if dtype is None else np.dtype(dtype))
        self._dtype: np.dtype[Any] | None = None
        self._left_s = task.permissions.timeout_s

    @classmethod
    def open(
        cls,
        handle: Handle,
        code: str,
        chunks: Iterable[Any],
        *,
        dtype: Any = None,
        state: Value = None,
        returns: Part | Iterable[Part] = (),
        on_excess: OnExcess = "refuse",
        **options: Any,
    ) -> RecordStream:
        """Make ready to run a record program over chunks of records.

        Args:
            handle: The client's.
            code: The program.
            chunks: Arrays of one dtype, or bytes; there may be any number. One array, which may be
                mapped from a file, is cut into pieces of 16 MiB.
            dtype: Of bytes, which may then be cut anywhere. Without it each chunk holds whole
                records of the ``struct record`` that the program declares.
            state: First values of state fields; the others are zero.
            returns: What each result's value holds besides the count and the state: ``indices`` and
                ``mask`` (both counted from the chunk's first record), ``records``, ``outputs``, or
                several of them.
            on_excess: As for `runvisor.supervisor.client.Supervisor.run`.
            options: As there: ``permissions``, ``trust``, ``label``.

        Raises:
            ConfigError: The task is malformed.
        """
        task, reason = make_task(code, LANGUAGE, **options)
        run = partial(handle.run, on_excess=on_excess, language_reason=reason)
        return cls(run, task, chunks, dtype=dtype, state=state, returns=returns)

    def __next__(self) -> Result:
        """Run the next chunk.

        Raises:
            RunvisorError: What the chunk failed with; ``where`` begins with its number, and the details
                have ``chunk`` and ``first_record``. The stream ends there; `state` is that before it.
        """
        try:
            result = self._result(next(self._arrays))
        except RunvisorError as error:
            self._arrays = iter(())
            raise self._named(error) from error
        return result

    def finish(self) -> dict[str, Value]:
        """Run what is left, and return the value of the whole: how many records were selected, and the last state.

        Raises:
            RunvisorError: As by iteration.
        """
        for _ in self:
            pass
        return {"selected": self.selected, "state": self.state}

    def _result(self, records: Records | bytes) -> Result:
        if isinstance(records, np.ndarray):
            if self._dtype is not None and records.dtype != self._dtype:
                raise InvalidTask(f"a chunk of dtype {records.dtype} follows those of {self._dtype}", "records")
            self._dtype = records.dtype
        if self._left_s < _SHORTEST_S:
            whole_s = self._task.permissions.timeout_s
            raise TimeLimitExceeded(f"the chunks ran longer than {whole_s} s", "timeout_s", "raise timeout_s")
        inputs = {"records": records, "state": self.state, "return": self._returns}
        permissions = replace(self._task.permissions, timeout_s=self._left_s)
        result = self._run(replace(self._task, inputs=inputs, permissions=permissions))
        value = result.unwrap()
        self._left_s -= result.usage.wall_s
        self.selected += value["selected"]
        self.state = value["state"]
        self.records += len(records) if isinstance(records, np.ndarray) else 0
        self.chunks += 1
        return result

    def _named(self, error: RunvisorError) -> RunvisorError:
        """Return the same error with the chunk's number."""
        where = f"chunk {self.chunks}" + (f", {error.where}" if error.where else "")
        details = {**error.details, "chunk": self.chunks, "first_record": self.records}
        wire = error.to_wire()
        return RunvisorError.from_wire({**wire, "args": [error.what, where, error.remedy, details]})


def _whole_records(chunks: Iterable[Any], dtype: np.dtype[Any] | None) -> Iterator[Records | bytes]:
    """Yield arrays, or bytes where only the program knows what they are; a large array in pieces."""
    if isinstance(chunks, bytes | bytearray | memoryview):
        chunks = (chunks,)
    elif isinstance(chunks, np.ndarray):
        size = max(1, _PIECE_BYTES // max(1, chunks.dtype.itemsize))
        whole: Records = chunks
        yield from (whole[first : first + size] for first in range(0, len(whole), size))
        return
    rest = b""
    for chunk in chunks:
        if dtype is None or not isinstance(chunk, bytes | bytearray | memoryview):
            yield bytes(chunk) if isinstance(chunk, bytearray | memoryview) else chunk
            continue
        data = rest + bytes(chunk)
        cut = len(data) - len(data) % dtype.itemsize
        rest = data[cut:]
        if cut:
            yield np.frombuffer(data, dtype, cut // dtype.itemsize)
    if rest and dtype is not None:
        raise InvalidTask(
            f"the last {len(rest)} bytes are not a whole record of {dtype.itemsize}",
            "records",
            "leave them out, or correct the dtype",
        )
