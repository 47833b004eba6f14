"""Record programs on wasm: the same function, layouts and value as in the kernel, for when that is out of reach.

Compiled for wasm64, whose ``long``, ``sizeof`` and pointers are as wide as the
kernel's, so that the same text means the same here and there. (wasm32 would take
3.1 instead of 4.0 ns for a record of 16 bytes.)
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.ebpf.diagnostics import compiler_error
from runvisor.actors.wasm.agreement import CHUNK, HARNESS_BYTES, MIN_STATE_BYTES, OPEN, WINDOW_BYTES
from runvisor.actors.wasm.compilers.compilers import Compilers
from runvisor.actors.wasm.executions import GRACE_S, Module, Outcome, compiled, of_type
from runvisor.actors.wasm.lanes import Lane, Unanswered
from runvisor.actors.wasm.links import EngineLink
from runvisor.actors.wasm.replies import guest_error
from runvisor.policies import errors
from runvisor.policies.permissions import KiB, MiB, Permissions
from runvisor.policies.record_answers import Answer
from runvisor.policies.record_inputs import RecordInputs
from runvisor.policies.record_text import ENTRY
from runvisor.policies.records import LANGUAGE, RecordProgram, parse_program

PROFILE: Final = "record"
_KEPT_PROGRAMS: Final = 256
_KEPT_SOURCE_CHARACTERS: Final = 64 * KiB
_PAGE: Final = 64 * KiB
_COUNT_BYTES: Final = 4
_HARNESS: Final = f"""\
u64 {OPEN}(u64 bytes);
u64 {CHUNK}(u64 records, u64 state, u64 count);
u64 {OPEN}(u64 bytes)
{{
    u64 before = __builtin_wasm_memory_grow(0, (bytes + {_PAGE - 1}) / {_PAGE});
    return before == ~(u64)0 ? 0 : before * {_PAGE};
}}
"""
_COLLECTING_HARNESS: Final = _HARNESS.replace("u64 count);", "u64 count, u64 marks, u64 outputs);")
_LOOP: Final = f"""
u64 {CHUNK}(u64 records, u64 state, u64 count)
{{
    u64 selected = 0;
    for (u64 index = 0; index < count; index++)
        selected += {ENTRY}((struct record *)(records + index * RECORD_BYTES), (struct state *)state) != 0;
    return selected;
}}
"""


_COLLECTING_LOOP: Final = f"""
u64 {CHUNK}(u64 records, u64 state, u64 count, u64 marks, u64 outputs)
{{
    u64 selected = 0;
    for (u64 index = 0; index < count; index++)
        if ({ENTRY}((struct record *)(records + index * RECORD_BYTES), (struct state *)stateOUTPUT)) {{
            selected++;
            ((u8 *)marks)[index] = 1;
        }}
    return selected;
}}
"""
_OUTPUT: Final = ", (struct output *)(outputs + index * OUTPUT_BYTES)"


def translation_unit(program: RecordProgram) -> str:
    """Return the C text to compile for a program."""
    harness = _COLLECTING_HARNESS + _COLLECTING_LOOP if program.collects else _HARNESS + _LOOP
    harness = harness.replace("OUTPUT)", f"{_OUTPUT})" if program.output else ")")
    sizes = {"RECORD_BYTES": program.record.size, "OUTPUT_BYTES": program.output_bytes}
    for name, size in sizes.items():
        harness = harness.replace(name, str(size))
    return program.translation_unit(harness)


class RecordPrograms:
    """Record programs that were parsed before, by text, dtype of the records and whether they collect.

    Args:
        compilers: What compiles them.
    """

    def __init__(self, compilers: Compilers) -> None:
        self._compilers = compilers
        self._lock = threading.Lock()
        self._parsed: OrderedDict[tuple[str, Any, bool], tuple[RecordProgram, str]] = OrderedDict()

    def parse(self, source: str, dtype: Any, *, collects: bool = False) -> tuple[RecordProgram, str]:
        """Return a program and the C text to compile for it.

        Raises:
            GuestSyntaxError: The text holds what the language does not have.
            InvalidTask: The dtype cannot be a record, or is not the one the author wrote.
        """
        key = (source, dtype, collects)
        with self._lock:
            found = self._parsed.get(key)
            if found is not None:
                self._parsed.move_to_end(key)
                return found
        program = parse_program(source, dtype, collects=collects)
        found = program, translation_unit(program)
        if len(source) <= _KEPT_SOURCE_CHARACTERS:
            with self._lock:
                self._parsed[key] = found
                while len(self._parsed) > _KEPT_PROGRAMS:
                    self._parsed.popitem(last=False)
        return found

    def compile(self, unit: str) -> tuple[Module, bool]:
        """Return the module of a C text, and whether it had to be compiled for that.

        Raises:
            GuestSyntaxError: The compiler refuses it; said in the words of the kernel's variant.
            RunvisorError: As `Compilers.compile` does.
        """
        code = self._compilers.get(LANGUAGE, unit)
        if code is not None:
            return Module.of(code, is_text=False), False
        try:
            return Module.of(self._compilers.compile(LANGUAGE, unit, (OPEN, CHUNK)), is_text=False), True
        except errors.GuestSyntaxError as error:
            if error.where == "link":
                raise errors.GuestSyntaxError(
                    f"the program calls what is not there: {error.what}",
                    "",
                    "define every function, and use integers of up to 64 bits",
                    error.details,
                ) from None
            raise compiler_error(str(error.details.get("log", error.what)), crashed=False) from None


@dataclass(slots=True, eq=False)
class RecordRun:
    """The work of running a record program on its records.

    Args:
        program: What to run.
        module: Its compiled harness.
        inputs: The records and the first state.
        permissions: The grant's.
        on_started: Called once, before the program sees a record.
    """

    program: RecordProgram
    module: Module
    inputs: RecordInputs
    permissions: Permissions
    on_started: Callable[[], None]
    _has_started: bool = False

    @property
    def memory_bytes(self) -> int:
        """What one instance may take: its own, beside the records and the state that the grant counts."""
        windows = WINDOW_BYTES * (2 if self.program.collects else 1)
        return self.program.state_bytes + MIN_STATE_BYTES + windows + HARNESS_BYTES

    def __call__(self, link: EngineLink, lane: Lane) -> Outcome:
        """Compile it if the engine does not have it, and pass all records through it."""
        state = self.program.initial_state(self.inputs.state)
        was_cold = False
        for _ in range(2):  # a second time when the engine has forgotten the module
            if (self.module.digest, PROFILE) not in link.modules:
                was_cold = True
                compiled(link, lane, self.module, PROFILE)
            outcome = self._run(link, lane, state, was_cold)
            if outcome is not None:
                return outcome
            link.modules.pop((self.module.digest, PROFILE), None)
        raise errors.ProtocolError("the engine forgets a program that it has just compiled")

    def _run(self, link: EngineLink, lane: Lane, state: bytes, was_cold: bool) -> Outcome | None:
        """Pass all records through one instance; None if the engine has forgotten the program."""
        records = self.inputs.records
        answer = Answer(self.program, self.inputs, self.permissions.output_bytes)
        per_window = WINDOW_BYTES // max(self.program.record.size, self.program.collected_bytes)
        if not self._has_started:
            self._has_started = True
            self.on_started()
        began = time.monotonic()
        deadline = began + self.permissions.timeout_s
        selected = done = 0
        while True:
            part = records[done : done + per_window]
            if len(part):
                with memoryview(lane.window()) as window:
                    self.program.copy_records(part, window)
            request: Message = {
                "op": "records",
                "key": self.module.digest,
                "count": len(part),
                "is_last": done + len(part) == len(records),
            }
            if not done:
                request |= {
                    "record_bytes": self.program.record.size,
                    "state": state,
                    "collects": self.program.collects,
                    "output_bytes": self.program.output_bytes,
                    "timeout_s": self.permissions.timeout_s,
                    "memory_bytes": self.memory_bytes,
                }
            try:
                left_s = max(0.0, deadline - time.monotonic())
                reply = lane.ask(request, left_s + GRACE_S, self.program.state_bytes + MiB)
            except Unanswered:
                link.condemn()
                return Outcome(error=self._late(len(records) - done), wall_s=time.monotonic() - began)
            if reply.get("unknown"):
                return None
            if "error" in reply:
                error = guest_error(reply["error"])
                if isinstance(error, errors.TimeLimitExceeded):
                    error = self._late(len(records) - done)
                return Outcome(error=error, wall_s=time.monotonic() - began, was_cold=was_cold)
            selected += of_type(reply, "selected", int)
            if self.program.collects and len(part):
                self._collect(answer, done, len(part), lane)
            done += len(part)
            if request["is_last"]:
                return self._read(answer, selected, reply, time.monotonic() - began, was_cold)

    def _collect(self, answer: Answer, first: int, count: int, lane: Lane) -> None:
        """Take what the engine left in the window, by sizes that are known here."""
        outputs = count * self.program.output_bytes
        with memoryview(lane.window()) as window:
            answer.take(first, window[outputs : outputs + count], window[:outputs])

    def _read(self, answer: Answer, selected: int, reply: Message, wall_s: float, was_cold: bool) -> Outcome:
        outcome = Outcome(wall_s=wall_s, cpu_s=of_type(reply, "cpu_s", float), was_cold=was_cold)
        try:
            value, size = answer.value(selected, reply.get("state"))
        except errors.OutputLimitExceeded as error:
            return replace(outcome, error=error)
        return replace(outcome, value=value, value_bytes=_COUNT_BYTES + self.program.state_bytes + size)

    def _late(self, records_left: int) -> errors.TimeLimitExceeded:
        return errors.TimeLimitExceeded(
            f"the task ran longer than {self.permissions.timeout_s} s",
            "timeout_s",
            "raise timeout_s, or do less",
            {"records_left": records_left},
        )
