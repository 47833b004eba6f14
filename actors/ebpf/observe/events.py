"""Observing by authors' event programs: what is compiled, and where it is attached."""

from __future__ import annotations

import contextlib
import difflib
import re
import struct
from typing import Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.ebpf.agreement import FUNCTION
from runvisor.actors.ebpf.compiler import Compiler
from runvisor.actors.ebpf.diagnostics import verifier_error
from runvisor.actors.ebpf.observe import event_harness
from runvisor.actors.ebpf.observe.event_places import EventPlace, EventPlaces
from runvisor.actors.ebpf.observe.program import ObservationProgram
from runvisor.policies.errors import GuestSyntaxError
from runvisor.policies.event_programs import MAX_ROWS, EventProgram, parse_program
from runvisor.policies.observations import ObservationRequest

_COMPILE_S: Final = 30.0
_LINES_S: Final = 5.0
_NEAR: Final = 3
_PENDING_BYTES: Final = 8
_NO_MEMBER: Final = re.compile(r"no member named '(\w+)' in 'struct event'")


class CompiledEvents:
    """An author's program, ready for an observation.

    Args:
        program: As it was read.
        place: Where it runs.
        main: The text around it.
        code: Its instructions, scanned.
    """

    def __init__(self, program: EventProgram, place: EventPlace, main: str, code: bytes) -> None:
        self._program = program
        self._main = main
        self.place = place
        self.codes = {FUNCTION: code}
        """Instructions by function."""
        self.observation = ObservationProgram(
            place.title,
            program.body,
            (place.hook,),
            event_harness.key_bytes(program),
            struct.Struct(f"{program.value.size}s"),
            pending_bytes=_PENDING_BYTES,
            entries=MAX_ROWS,
            columns=program.columns,
            rows=program.rows,
        )

    def refusal(self, compiler: Compiler, log: str) -> GuestSyntaxError:
        """Return the error for what the verifier said of it, with the author's line if that can be told."""
        lines = compiler.lines(self._main, self._program.body, self.codes[FUNCTION], _LINES_S)
        return verifier_error(log, lines)


class EventPrograms:
    """Compiles authors' event programs. Safe from many threads.

    Args:
        compiler: Compiles in a jailed child.
    """

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._places = EventPlaces()

    def compile(
        self, source: str, request: ObservationRequest, cancellation: Cancellation, stack: contextlib.ExitStack
    ) -> CompiledEvents:
        """Read, compile and scan a program.

        Args:
            source: The author's text.
            request: Whom it observes.
            cancellation: Ends it at once.
            stack: Holds what is open for as long as the program may be attached.

        Raises:
            Cancelled: It was called off.
            GuestSyntaxError: It does not compile, or loops.
            CapabilityDenied: It calls the kernel.
            ConfigError: There is no such tracepoint, file or function; names those that are called nearly so.
            SpawnFailed: The kernel does not say where its events are.
        """
        program = parse_program(source)
        place = self._places.find(program, request, stack)
        main = event_harness.main_text(program, place.context)
        check = event_harness.check_of(place.context)
        try:
            code, _ = self._compiler.checked(main, program.body, check, _COMPILE_S, _nobody_waits, cancellation)
        except GuestSyntaxError as error:
            raise _with_members(error, place.members) from None
        return CompiledEvents(program, place, main, code)


def _with_members(error: GuestSyntaxError, members: tuple[str, ...]) -> GuestSyntaxError:
    """Return an error that, if it is about a field that an event does not have, names those that it has."""
    missing = _NO_MEMBER.search(error.what)
    if missing is None or not members:
        return error
    near = difflib.get_close_matches(missing[1], members, _NEAR) or members
    return type(error)(error.what, error.where, f"the event has {', '.join(near)}", error.details)


def _nobody_waits() -> None:
    pass
