"""What one execution has an executor do, whatever the kind of program."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, Final, Protocol

from runvisor.actors.channel.frames import Message
from runvisor.actors.ebpf.answers import checked_run, checked_state
from runvisor.actors.ebpf.compiler import Artifact
from runvisor.actors.ebpf.loaded import LoadedProgram, LoadedRecords, wanted_blocks
from runvisor.policies.errors import ProtocolError
from runvisor.policies.record_answers import Answer
from runvisor.policies.record_inputs import Records
from runvisor.policies.records import RecordProgram

SHORT_RUN: Final = 10_000_000
"""Instructions, at most, in a run that shares its caller's core: some 5 ms."""


class Ask(Protocol):
    """The way to one loaded program, for one execution. Each message gets an answer, in order."""

    def __call__(self, request: Message) -> Message:
        """Send a ``run`` message, with its deadline, and return the executor's answer, believed nothing yet."""
        ...

    def send(self, request: Message) -> None:
        """Send a ``run`` message, with its deadline; its answer is still to be taken."""
        ...

    def answer(self) -> Message:
        """Wait for the next answer; every one must have been taken before the execution is over."""
        ...


class Work(Protocol):
    """One execution: what to load for it, and how to run it there.

    An `Executor` asks it in the order of its methods, within one execution.
    """

    @property
    def artifact(self) -> Hashable:
        """The checked program; what was loaded for an equal one serves again."""
        ...

    @property
    def room(self) -> int:
        """How much input must fit in the loaded program at once, in units of its kind."""
        ...

    @property
    def instructions(self) -> int:
        """About how many instructions it runs."""
        ...

    @property
    def needed_bytes(self) -> int:
        """What its maps take, if it has to be loaded."""
        ...

    def load_message(self) -> dict[str, Any]:
        """Return what the executor's end of this kind needs to load it."""
        ...

    @property
    def shared_maps(self) -> int:
        """How many maps the executor shares."""
        ...

    def loaded(self, number: int, fds: Sequence[int]) -> LoadedProgram:
        """Map what the executor has loaded; takes the descriptors over."""
        ...

    def run(self, loaded: LoadedProgram, ask: Ask) -> Message:
        """Run it; return the last answer, with what the answers before it add up to."""
        ...


class RecordWork:
    """Running a record program over an array.

    Args:
        artifact: The checked program.
        program: Its layouts.
        records: Its input.
        state: Its first state, empty for zeros.
        collected: Takes what the program collects, if it does.
    """

    def __init__(
        self, artifact: Artifact, program: RecordProgram, records: Records, state: bytes, collected: Answer
    ) -> None:
        self.artifact = artifact
        self.room = wanted_blocks(len(records), artifact.record_bytes, artifact.output_bytes)
        self.shared_maps = 2 if artifact.collects else 1
        self.instructions = len(records) * artifact.cost
        self._program = program
        self._records = records
        self._state = state
        self._collected = collected

    @property
    def needed_bytes(self) -> int:
        """See `Work`."""
        return LoadedRecords.bytes_for(self.artifact, self.room)

    def load_message(self) -> dict[str, Any]:
        """See `Work`."""
        return {
            "kind": "record",
            "instructions": self.artifact.instructions,
            "cost": self.artifact.cost,
            "record_bytes": self.artifact.record_bytes,
            "state_bytes": self.artifact.state_bytes,
            "output_bytes": self.artifact.output_bytes,
            "collects": self.artifact.collects,
            "blocks": self.room,
        }

    def loaded(self, number: int, fds: Sequence[int]) -> LoadedRecords:
        """See `Work`."""
        return LoadedRecords(number, self.artifact, self.room, fds)

    def run(self, loaded: LoadedProgram, ask: Ask) -> Message:
        """See `Work`: a long run goes on over one part of the records while the next ones are being written."""
        assert isinstance(loaded, LoadedRecords)
        records = self._records
        per_part = loaded.capacity if self.instructions <= SHORT_RUN else loaded.part
        in_map = loaded.capacity // per_part
        under_way: deque[int] = deque()
        total = _Total()
        loaded.clear(len(records))
        for number, first in enumerate(range(0, len(records) or 1, per_part)):
            if len(under_way) == in_map:  # its place in the map is free when the part before it is done
                self._take(loaded, ask, under_way.popleft(), per_part, total)
                if total.failure is not None:
                    break
            part = records[first : first + per_part]
            block = loaded.write(self._program, part, number % in_map * per_part)
            ask.send(
                {
                    "op": "run",
                    "block": block,
                    "records": len(part),
                    "state": None if first else self._state,
                    "last": first + len(part) == len(records),
                }
            )
            under_way.append(first)
        while under_way:
            self._take(loaded, ask, under_way.popleft(), per_part, total)
        answer = total.answer()
        return answer if total.failure is not None else checked_state(answer, self.artifact.state_bytes)

    def _take(self, loaded: LoadedRecords, ask: Ask, first: int, per_part: int, total: _Total) -> None:
        """Take the answer about the part that begins with a record; behind a failure, only take it."""
        total.add(ask.answer(), min(per_part, len(self._records) - first))
        if total.failure is None:
            loaded.collect(self._collected, first)


class _Total:
    """What the answers about all parts add up to."""

    def __init__(self) -> None:
        self.failure: Message | None = None
        self._selected, self._cpu_s = 0, 0.0
        self._last: Message = {}

    def add(self, answer: Message, most: int) -> None:
        if checked_run(answer)["op"] == "done":
            selected = answer.get("selected")
            if not isinstance(selected, int) or not 0 <= selected <= most:
                raise ProtocolError(f"the executor's count of {most} records is no such number", "ebpf")
            self._selected += selected
            self._cpu_s += answer["cpu_s"]
            self._last = answer
        elif self.failure is None:
            self.failure = answer

    def answer(self) -> Message:
        return self.failure or {**self._last, "selected": self._selected, "cpu_s": self._cpu_s}
