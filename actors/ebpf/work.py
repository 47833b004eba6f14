"""What one execution has an executor do, whatever the kind of program."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeAlias

from runvisor.actors.channel.frames import Message
from runvisor.actors.ebpf.compiler import Artifact
from runvisor.actors.ebpf.loaded import LoadedProgram, LoadedRecords, wanted_blocks
from runvisor.policies.record_answers import Answer
from runvisor.policies.record_inputs import Records
from runvisor.policies.records import RecordProgram

Ask: TypeAlias = Callable[[Message], Message]
"""Sends a ``run`` message for the loaded program, with the time that is left; returns the executor's answer."""


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
        """See `Work`: records that do not fit at once go through the map in parts."""
        assert isinstance(loaded, LoadedRecords)
        records = self._records
        selected, cpu_s = 0, 0.0
        answer: Message = {}
        for first in range(0, len(records) or 1, loaded.capacity):
            part = records[first : first + loaded.capacity]
            loaded.write(self._program, part)
            answer = ask(
                {
                    "op": "run",
                    "records": len(part),
                    "state": None if first else self._state,
                    "last": first + len(part) == len(records),
                }
            )
            if answer.get("op") != "done":
                return answer
            loaded.collect(self._collected, first)
            selected += int(answer["selected"])
            cpu_s += float(answer["cpu_s"])
        return {**answer, "selected": selected, "cpu_s": cpu_s}
