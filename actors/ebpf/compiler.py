"""Compiling C to eBPF instructions, of record programs and of others: one fresh jailed child per text."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from runvisor.actors.artifacts import ArtifactCache
from runvisor.actors.cancellation import Cancellation
from runvisor.actors.ebpf.agreement import BODY_NAME, FUNCTION
from runvisor.actors.ebpf.code_cache import CodeCache
from runvisor.actors.ebpf.diagnostics import compiler_error
from runvisor.actors.ebpf.harness import main_text
from runvisor.actors.ebpf.line_table import LineTable
from runvisor.actors.instances import InstancePool
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.conversation import Bounds, Transcript, converse
from runvisor.actors.jail.mounts import SCRATCH
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.runtime import PoolSize, Watch, called_off
from runvisor.policies.bytecode import Loop, scan
from runvisor.policies.errors import (
    CapabilityDenied,
    CapacityError,
    GuestSyntaxError,
    MemoryLimitExceeded,
    TimeLimitExceeded,
    WorkerError,
)
from runvisor.policies.permissions import KiB, MiB
from runvisor.policies.records import RecordProgram

_GUEST: Final = "runvisor.actors.ebpf.compile_guest"
_MEMORY_BYTES: Final = 512 * MiB
_MESSAGE_BYTES: Final = 256 * KiB
_REPLY_BYTES: Final = 1 * MiB
_LINES_S: Final = 5.0
_INSTRUCTION: Final = re.compile(r"instruction (\d+)")
BODY_PATH: Final = f"{SCRATCH}/{BODY_NAME}"
"""Where a main file finds the body, in the child."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled and scanned record program: all that an executor needs, and nothing of bcc."""

    instructions: bytes
    """As compiled: maps by index, iterator functions by stand-in numbers."""
    cost: int
    """The most instructions from one pass of the loop gate to the next."""
    record_bytes: int
    state_bytes: int
    output_bytes: int = 0
    """Of one record's output."""
    collects: bool = False
    """The program marks which records it selects."""


class Compiler:
    """Compiles with bcc in jailed children that hold no capability.

    Args:
        size: How many compilations at once, and how long to wait for a turn.
        artifacts: Where instructions are kept for later processes; None compiles every text.
    """

    def __init__(self, size: PoolSize, artifacts: ArtifactCache | None = None) -> None:
        self._cache = CodeCache(artifacts)
        self._zygote = Zygote(JailSpec("ebpf-compiler", _GUEST, syscalls="guest"))
        self._children: InstancePool[Child] = InstancePool(
            lambda: self._zygote.spawn(memory_bytes=_MEMORY_BYTES),
            Child.close,
            PoolSize(minimum=1, maximum=2, wait_s=size.wait_s, max_waiting=size.max_waiting),
        )

    def start(self) -> None:
        """Start the zygote, which loads LLVM, and a first child.

        Raises:
            SpawnFailed: It cannot run here.
        """
        self._zygote.start()
        self._children.start()

    def compile(
        self,
        program: RecordProgram,
        loop: Loop,
        max_instructions: int,
        timeout_s: float,
        on_started: Callable[[], None],
    ) -> Artifact:
        """Compile and scan a program in a child that no text was given to before.

        Args:
            program: The parsed program.
            loop: How the harness loops on this kernel.
            max_instructions: The longest program allowed.
            timeout_s: The child is killed then.
            on_started: Called once, when the child is about to read the text; not if it is kept.

        Raises:
            GuestSyntaxError: It does not compile, or loops.
            CapabilityDenied: It calls the kernel.
            TimeLimitExceeded: It took too long to compile.
            MemoryLimitExceeded: It took too much memory to compile.
            WorkerCrashed: The child died before it read the text.
            PoolExhausted: No child came free in time.
        """
        main = main_text(program, loop, BODY_PATH)
        maps = 3 if program.collects else 2
        check = functools.partial(scan, loop=loop, max_instructions=max_instructions, maps=maps)
        code, cost = self.checked(main, program.body, check, timeout_s, on_started)
        layout = program.record.size, program.state_bytes, program.output_bytes, program.collects
        return Artifact(code, cost, *layout)

    def checked(
        self,
        main: str,
        body: str,
        check: Callable[[bytes], int],
        timeout_s: float,
        on_started: Callable[[], None],
        cancellation: Cancellation | None = None,
    ) -> tuple[bytes, int]:
        """Compile the one program of a text and scan it; what the scan refuses is said with the author's line.

        Args:
            main: See `instructions`.
            body: See `instructions`.
            check: Scans the instructions, and returns their cost.
            timeout_s: The child is killed then.
            on_started: See `instructions`.
            cancellation: See `instructions`.

        Raises:
            RunvisorError: See `compile` and `instructions`.
        """
        deadline = time.monotonic() + timeout_s
        code = self.instructions(main, body, timeout_s, on_started, cancellation=cancellation)[FUNCTION]
        try:
            return code, check(code)
        except (GuestSyntaxError, CapabilityDenied) as error:
            found = _INSTRUCTION.fullmatch(error.where)
            left_s = deadline - time.monotonic()
            place = self.lines(main, body, code, left_s).nearest(int(found[1])) if found and left_s > 0 else None
            if place is None:
                raise
            raise type(error)(error.what, place, error.remedy, error.details) from None

    def lines(self, main: str, body: str, code: bytes, timeout_s: float) -> LineTable:
        """Compile a text once more, to say where something is wrong; without an answer the table is empty.

        Args:
            main: As it was given to `instructions`.
            body: As it was given to `instructions`.
            code: The instructions that are asked about.
            timeout_s: How long the caller can wait; some seconds at most are taken.
        """
        task = {"main": main, "body": body, "functions": [], "wants_lines": True}
        bounds = Bounds(min(timeout_s, _LINES_S), _MESSAGE_BYTES, _REPLY_BYTES)
        try:
            with self._children.lend() as child:
                reply = converse(child, task, bounds, Watch()).reply or {}
        except (CapacityError, WorkerError):
            return LineTable.unknown()
        found, shown = reply.get("lines"), reply.get("shown")
        if not isinstance(found, list) or not isinstance(shown, bytes):
            return LineTable.unknown()
        return LineTable(found, shown, code)

    def instructions(
        self,
        main: str,
        body: str,
        timeout_s: float,
        on_started: Callable[[], None],
        functions: Sequence[str] = (FUNCTION,),
        cancellation: Cancellation | None = None,
    ) -> dict[str, bytes]:
        """Compile a text to the instructions of its functions, in a child that no text was given to before.

        The same text, kernel and compiler give what they gave an earlier process, if that is kept.

        The instructions come from a process that read the text: whoever did not write it
        himself scans them before they are loaded. They fit any type of program. Maps are
        not declared but named by index, ``rv_map(1, index)``, after
        ``u64 rv_map(u64, u64) asm("llvm.bpf.pseudo");``; `runvisor.actors.ebpf.relocation`
        puts descriptors in. bcc declares the helpers of the kernel.

        Args:
            main: The main file, for our own text. Each function in it whose name is asked for becomes a
                program; all others must be inlined. bcc takes the main file for its own dialect.
            body: Text of a second file, not touched by bcc, that ``main`` includes as `BODY_PATH`.
            timeout_s: The child is killed then.
            on_started: Called once, when the child is about to read the text; not if it is kept.
            functions: Names of the programs.
            cancellation: Kills the child at once; None, and nothing calls it off.

        Raises:
            Cancelled: It was called off.
            GuestSyntaxError: It does not compile, or has no function of that name.
            TimeLimitExceeded: It took too long to compile.
            MemoryLimitExceeded: It took too much memory to compile.
            WorkerCrashed: The child died before it read the text.
            PoolExhausted: No child came free in time.
        """
        kept = self._cache.get(main, body, functions)
        if kept is not None:
            return kept
        task = {"main": main, "body": body, "functions": list(functions), "wants_lines": False}
        watch = Watch(on_started) if cancellation is None else Watch(on_started, cancellation=cancellation)
        with self._children.lend(cancellation=watch.cancellation) as child:
            transcript = converse(child, task, Bounds(timeout_s, _MESSAGE_BYTES, _REPLY_BYTES), watch)
        codes = _instructions(transcript, timeout_s, functions)
        self._cache.put(main, body, functions, codes)
        return codes

    def close(self) -> None:
        """End every child and the zygote; closing twice is fine."""
        self._children.close()
        self._zygote.close()


def _instructions(transcript: Transcript, timeout_s: float, functions: Sequence[str]) -> dict[str, bytes]:
    """Take the instructions out of a transcript, or raise for how it ended."""
    reply = transcript.reply or {}
    found = reply.get("instructions")
    if transcript.end == "reply" and reply.get("op") == "compiled" and isinstance(found, dict):
        codes = {name: code for name in functions if isinstance(code := found.get(name), bytes)}
        if len(codes) == len(functions):
            return codes
    if transcript.end == "cancelled":
        raise called_off()
    if transcript.end == "timeout":
        raise TimeLimitExceeded(
            f"the program was not compiled within {timeout_s:.3g} s", "timeout_s", "raise timeout_s, or write less"
        )
    end = transcript.exit
    if end is not None and end.oom_killed:
        raise MemoryLimitExceeded(
            f"the program takes more than {_MEMORY_BYTES // MiB} MiB to compile", "memory_bytes", "write less"
        )
    raise compiler_error(transcript.stderr.decode(errors="replace"), crashed=transcript.end == "exit")
