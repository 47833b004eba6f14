"""What a program finds in ``struct event``, by where it runs, and how that is filled from the kernel's context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runvisor.actors.ebpf.bpf import ProgramType
from runvisor.actors.jail.kernel import MACHINE
from runvisor.policies.tracepoint_format import Field

MAX_ARGUMENTS: Final = 6
_SYSTEM_CALL: Final = "sys_enter"
_CALL_REGISTERS: Final = {"x86_64": (56, (7, 6, 5, 0, 2, 1)), "aarch64": (0, (0, 1, 2, 3, 4, 5))}.get(MACHINE, (0, ()))
"""Where in ``struct pt_regs`` the words with a system call's arguments begin, and which each is; see syscall(2)."""
_ARGUMENT_WORDS: Final = (14, 13, 12, 11, 9, 8)
_RESULT_WORD: Final = 10
"""Words of x86-64's ``struct pt_regs`` (arch/x86/include/asm/ptrace.h) that the System V ABI passes by."""


@dataclass(frozen=True, slots=True)
class EventContext:
    """How the events of a place look."""

    kind: ProgramType
    """Of the programs there."""
    members: str
    """Members of ``struct event`` beside those of every event."""
    filling: tuple[str, ...]
    """Statements that fill them; ``context`` is a ``u64 *``."""
    kernel_reads: int = 0
    """How many of them read the kernel's memory."""


def raw_tracepoint(name: str, arguments: int) -> EventContext:
    """Return what a raw tracepoint's events have.

    Args:
        name: Of the tracepoint.
        arguments: How many it has: the kernel lets no more be read.
    """
    filling = [f"event.args[{number}] = context[{number}];" for number in range(min(arguments, MAX_ARGUMENTS))]
    start, words = _CALL_REGISTERS
    if name == _SYSTEM_CALL:
        filling.append(f"u64 words[{max(words, default=0) + 1}] = {{}};")
        filling.append(f"rv_read_kernel(words, sizeof words, event.args[0] + {start});")
        filling += [f"event.call_args[{number}] = words[{word}];" for number, word in enumerate(words)]
    members = f"u64 args[{MAX_ARGUMENTS}], call_args[6];"
    return EventContext(ProgramType.RAW_TRACEPOINT, members, tuple(filling), int(name == _SYSTEM_CALL))


def tracepoint(fields: Sequence[Field]) -> EventContext:
    """Return what a tracepoint's events have.

    Args:
        fields: Those that the program uses.
    """
    members = "\n    ".join(field.declaration for field in fields)
    reads = sum(field.is_varying for field in fields)
    return EventContext(ProgramType.TRACEPOINT, members, tuple(field.reading for field in fields), reads)


def function_entry() -> EventContext:
    """Return what is there when a function is entered, on x86-64."""
    filling = tuple(f"event.arg[{number}] = context[{word}];" for number, word in enumerate(_ARGUMENT_WORDS))
    return EventContext(ProgramType.KPROBE, f"u64 arg[{len(filling)}];", filling)


def function_return() -> EventContext:
    """Return what is there when a function returns, on x86-64."""
    return EventContext(ProgramType.KPROBE, "u64 ret;", (f"event.ret = context[{_RESULT_WORD}];",))
