"""Observing by authors' event programs: what is compiled, and where it can be attached."""

from __future__ import annotations

import difflib
import struct
import threading
from typing import Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.ebpf import btf
from runvisor.actors.ebpf.agreement import FUNCTION
from runvisor.actors.ebpf.compiler import Compiler
from runvisor.actors.ebpf.diagnostics import verifier_error
from runvisor.actors.ebpf.observe import event_harness
from runvisor.actors.ebpf.observe.harness import Hook
from runvisor.actors.ebpf.observe.program import ObservationProgram
from runvisor.policies.errors import ConfigError, GuestSyntaxError, SpawnFailed
from runvisor.policies.event_programs import MAX_ROWS, EventProgram, parse_program

_COMPILE_S: Final = 30.0
_LINES_S: Final = 5.0
_NEAR: Final = 3
_PENDING_BYTES: Final = 8


class CompiledEvents:
    """An author's program, ready for an observation.

    Args:
        program: As it was read.
        main: The text around it.
        code: Its instructions, scanned.
    """

    def __init__(self, program: EventProgram, main: str, code: bytes) -> None:
        self._program = program
        self._main = main
        self.codes = {FUNCTION: code}
        """Instructions by function."""
        self.title = program.title
        self.observation = ObservationProgram(
            program.title,
            program.body,
            (Hook(FUNCTION, program.event),),
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
        self._lock = threading.Lock()
        self._tracepoints: dict[str, int] = {}

    def compile(self, source: str, cancellation: Cancellation) -> CompiledEvents:
        """Read, compile and scan a program.

        Args:
            source: The author's text.
            cancellation: Ends it at once.

        Raises:
            Cancelled: It was called off.
            GuestSyntaxError: It does not compile, or loops.
            CapabilityDenied: It calls the kernel.
            ConfigError: There is no such tracepoint; names those that are called nearly so.
            SpawnFailed: The kernel's type information cannot be read.
        """
        program = parse_program(source)
        main = event_harness.main_text(program, self._arguments(program.event))
        check = event_harness.check_of(program)
        code, _ = self._compiler.checked(main, program.body, check, _COMPILE_S, _nobody_waits, cancellation)
        return CompiledEvents(program, main, code)

    def _arguments(self, event: str) -> int:
        """Return how many arguments a raw tracepoint has."""
        with self._lock:
            if not self._tracepoints:
                try:
                    self._tracepoints = btf.raw_tracepoints(btf.VMLINUX.read_bytes())
                except (OSError, ValueError) as error:
                    raise SpawnFailed(
                        f"the kernel's type information cannot be read: {error}",
                        str(btf.VMLINUX),
                        "boot a kernel with CONFIG_DEBUG_INFO_BTF",
                    ) from None
            known = self._tracepoints
        if event not in known:
            near = difflib.get_close_matches(event, known, _NEAR)
            raise ConfigError(
                f"the kernel has no raw tracepoint {event}",
                "program",
                f"use {' or '.join(near)}" if near else "see include/trace/events in the kernel's source",
            )
        return known[event]


def _nobody_waits() -> None:
    pass
