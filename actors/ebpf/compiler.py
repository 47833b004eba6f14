"""Compiling record programs: one fresh jailed child per text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runvisor.actors.ebpf.agreement import BODY_NAME
from runvisor.actors.ebpf.diagnostics import compiler_error
from runvisor.actors.ebpf.harness import main_text
from runvisor.actors.instances import InstancePool
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.conversation import Bounds, Transcript, converse
from runvisor.actors.jail.mounts import SCRATCH
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.bytecode import Loop, scan
from runvisor.policies.errors import MemoryLimitExceeded, TimeLimitExceeded
from runvisor.policies.permissions import KiB, MiB
from runvisor.policies.records import RecordProgram

_GUEST: Final = "runvisor.actors.ebpf.compile_guest"
_MEMORY_BYTES: Final = 512 * MiB
_MESSAGE_BYTES: Final = 256 * KiB
_REPLY_BYTES: Final = 1 * MiB


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled and scanned record program: all that an executor needs, and nothing of bcc."""

    instructions: bytes
    """As compiled: maps by index, iterator functions by stand-in numbers."""
    cost: int
    """The most instructions from one pass of the loop gate to the next."""
    record_bytes: int
    state_bytes: int


class Compiler:
    """Compiles with bcc in jailed children that hold no capability.

    Args:
        size: How many compilations at once, and how long to wait for a turn.
    """

    def __init__(self, size: PoolSize) -> None:
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
            on_started: Called once, when the child is about to read the text.

        Raises:
            GuestSyntaxError: It does not compile, or loops.
            CapabilityDenied: It calls the kernel.
            TimeLimitExceeded: It took too long to compile.
            MemoryLimitExceeded: It took too much memory to compile.
            WorkerCrashed: The child died before it read the text.
            PoolExhausted: No child came free in time.
        """
        task = {"main": main_text(program, loop, f"{SCRATCH}/{BODY_NAME}"), "body": program.body}
        with self._children.lend() as child:
            transcript = converse(child, task, Bounds(timeout_s, _MESSAGE_BYTES, _REPLY_BYTES), Watch(on_started))
        code = _instructions(transcript, timeout_s)
        cost = scan(code, loop, max_instructions=max_instructions)
        return Artifact(code, cost, program.record.size, program.state_bytes)

    def close(self) -> None:
        """End every child and the zygote; closing twice is fine."""
        self._children.close()
        self._zygote.close()


def _instructions(transcript: Transcript, timeout_s: float) -> bytes:
    """Take the instructions out of a transcript, or raise for how it ended."""
    reply = transcript.reply or {}
    code = reply.get("instructions")
    if transcript.end == "reply" and reply.get("op") == "compiled" and isinstance(code, bytes):
        return code
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
