"""A static scan of eBPF instructions, before the kernel's verifier sees them.

The verifier proves memory safety. This proves what it does not: that a record
program calls nothing but what its harness calls, and that every
cycle in it passes the harness's loop gate. So the longest way from gate to gate is the
most that one record can cost, which bounds the time of one uninterruptible run.

How often the gate lets pass: ``iterator`` is proved here and by the verifier, each pass
takes one of the chunk's records. ``may_goto`` alone lets pass up to eight million
times; that the harness's own count ends the loop before is what the compiler made of
it, and assembly, with which an author could jump past the count, is not part of the
language.

Source: RFC 9669 (BPF Instruction Set Architecture); ``may_goto`` and kfunc calls
from include/uapi/linux/bpf.h (BPF_JCOND, BPF_PSEUDO_KFUNC_CALL).
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from runvisor.policies.errors import CapabilityDenied, EngineRefused, GuestSyntaxError, RunvisorError
from runvisor.policies.trust import Trust

Loop = Literal["may_goto", "iterator"]
"""How the harness's loop is bounded: by the ``may_goto`` instruction (Linux 6.9), or by
the ``bpf_iter_num`` functions (Linux 6.4), each of whose steps is a call."""

MAX_INSTRUCTIONS: Final[Mapping[Trust, int]] = {
    Trust.UNTRUSTED: 4096,
    Trust.VERIFIED: 16384,
    Trust.TRUSTED: 65536,
}
"""Longest program per trust level. No level may call helpers of the kernel: an answer
must not depend on the engine, and a helper is a way into the kernel."""

INSTRUCTION_BYTES: Final = 8
ITERATOR_CALLS: Final[Mapping[int, str]] = {
    0x7E000001: "bpf_iter_num_new",
    0x7E000002: "bpf_iter_num_next",
    0x7E000003: "bpf_iter_num_destroy",
}
"""Call numbers that stand for kernel functions until a loader puts in their BTF ids."""
_ITERATOR_NEXT: Final = 0x7E000002
_MAP_LOOKUP: Final = 1
_HELPER_NAMES: Final[Mapping[int, str]] = {
    2: "bpf_map_update_elem",
    3: "bpf_map_delete_elem",
    4: "bpf_probe_read",
    5: "bpf_ktime_get_ns",
    6: "bpf_trace_printk",
    7: "bpf_get_prandom_u32",
    8: "bpf_get_smp_processor_id",
    12: "bpf_tail_call",
    14: "bpf_get_current_pid_tgid",
    16: "bpf_get_current_comm",
    26: "bpf_skb_load_bytes",
    44: "bpf_xdp_adjust_head",
    51: "bpf_redirect_map",
    54: "bpf_xdp_adjust_meta",
    65: "bpf_xdp_adjust_tail",
    113: "bpf_probe_read_kernel",
    130: "bpf_ringbuf_output",
    166: "bpf_sys_bpf",
    169: "bpf_timer_init",
    181: "bpf_loop",
    189: "bpf_xdp_load_bytes",
    190: "bpf_xdp_store_bytes",
}

_LD_IMM64: Final = 0x18
_JA: Final = 0x05
_MAY_GOTO: Final = 0xE5
_CALL: Final = 0x85
_EXIT: Final = 0x95
_CONDITIONAL: Final = frozenset((0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0))
_LAYOUT: Final = struct.Struct("<BBhi")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One 8-byte instruction, decoded."""

    opcode: int
    source: int
    """The source register; in calls and 64-bit loads, what kind of thing ``immediate`` names."""
    destination: int
    offset: int
    immediate: int

    @property
    def is_jump(self) -> bool:
        """Whether it is of the two jump classes, calls and exit included."""
        return self.opcode & 7 in (5, 6)


def decode(code: bytes) -> tuple[Instruction, ...]:
    """Return the instructions of a program; a 64-bit load takes two.

    Raises:
        GuestSyntaxError: The bytes are not whole instructions.
    """
    if not code or len(code) % INSTRUCTION_BYTES:
        raise GuestSyntaxError(f"{len(code)} bytes are not a program of whole instructions")
    return tuple(
        Instruction(opcode, registers >> 4, registers & 15, offset, immediate)
        for opcode, registers, offset, immediate in _LAYOUT.iter_unpack(code)
    )


def scan(
    code: bytes,
    loop: Loop | None,
    *,
    max_instructions: int,
    maps: int = 2,
    helpers: Sequence[int] = (),
    offered: Collection[int] = (),
) -> int:
    """Check a compiled program, harness included.

    Args:
        code: The instructions as the compiler left them: maps named by index, iterator
            calls by `ITERATOR_CALLS`.
        loop: How the harness was told to loop; None: it does not.
        max_instructions: The longest program allowed.
        maps: How many the harness looks up.
        helpers: Numbers of the kernel's helpers that the harness calls besides, once each.
        offered: Numbers of those that the author may call, as often as he likes.

    Returns:
        The most instructions from one pass of the gate to the next; without a gate, from start to end.

    Raises:
        CapabilityDenied: It calls the kernel, or names kernel objects, beyond the harness.
        EngineRefused: It is too long, loops, recurses, or uses global data.
        GuestSyntaxError: The bytes are not a program.

    Example:
        >>> scan(_LAYOUT.pack(0xB7, 0, 0, 1) + _LAYOUT.pack(0x95, 0, 0, 0), "may_goto", max_instructions=64)
        Traceback (most recent call last):
        ...
        runvisor.policies.errors.CapabilityDenied: the program has 0 loop gates, not the harness's one \
(at instructions); leave the harness as it is
    """
    program = decode(code)
    if len(program) > max_instructions:
        raise EngineRefused(
            f"the program compiles to {len(program)} instructions, more than {max_instructions}",
            "instructions",
            "make it shorter, or unroll less",
        )
    calls: list[int] = []
    gates: list[int] = []
    ways: list[tuple[int, ...]] = [()] * len(program)
    middles: set[int] = set()
    index = 0
    while index < len(program):
        instruction = program[index]
        width = 1
        if instruction.opcode == _LD_IMM64:
            _check_load(program, index, maps)
            width = 2
            middles.add(index + 1)
        elif instruction.opcode & 7 == 0:
            raise _denied("reads packets with an old load instruction", index)
        ways[index] = tuple(at for at in _ways(instruction, index, width, len(program), loop) if at < len(program))
        if instruction.opcode == _CALL:
            calls.append(instruction.immediate)
        is_next = instruction.opcode == _CALL and instruction.immediate == _ITERATOR_NEXT
        if is_next if loop == "iterator" else instruction.opcode == _MAY_GOTO:
            gates.append(index)
        index += width
    if loop is not None and len(gates) != 1:
        raise CapabilityDenied(
            f"the program has {len(gates)} loop gates, not the harness's one",
            "instructions",
            "leave the harness as it is",
        )
    calls = [number for number in calls if number not in offered]
    _check_calls(calls, [_MAP_LOOKUP] * maps + [*helpers] + (list(ITERATOR_CALLS) if loop == "iterator" else []))
    for index, ahead in enumerate(ways):
        if not middles.isdisjoint(ahead):
            raise _denied("jumps into the middle of an instruction", index)
    return _longest_turn(ways, gates[0] if loop is not None else None)


def _longest_turn(ways: list[tuple[int, ...]], gate: int | None) -> int:
    """Return the most instructions from the gate, or the start, to the gate or the end.

    Raises:
        EngineRefused: There is a cycle that does not pass the gate.
    """
    longest = [0] * len(ways)
    state = bytearray(len(ways))  # 0 new, 1 on the way that is being walked, 2 done
    starts = (0,) if gate is None else (0, *ways[gate])
    for start in starts:
        if start == gate or state[start] == 2:
            continue
        stack = [start]
        while stack:
            at = stack[-1]
            ahead = [there for there in ways[at] if there != gate]
            if state[at] == 0:
                state[at] = 1
                for there in ahead:
                    if state[there] == 1:
                        raise EngineRefused(
                            "the program has a loop that the compiler could not unroll",
                            f"instruction {at}",
                            "give it a small constant bound and write '#pragma unroll' before it",
                        )
                stack.extend(there for there in ahead if state[there] == 0)
                continue
            stack.pop()
            if state[at] == 1:
                state[at] = 2
                longest[at] = 1 + max((longest[there] for there in ahead), default=0)
    return (gate is not None) + max((longest[start] for start in starts if start != gate), default=0)


def _check_load(program: tuple[Instruction, ...], index: int, maps: int) -> None:
    """Check a 64-bit load: a constant, or one of the harness's maps."""
    if index + 1 >= len(program):
        raise GuestSyntaxError("the program ends inside an instruction", f"instruction {index}")
    low, high = program[index], program[index + 1]
    if (high.opcode, high.source, high.destination, high.offset, low.offset) != (0, 0, 0, 0, 0):
        raise _denied("holds a forged instruction", index)
    if low.source == 0:
        if high.immediate == 0 and low.immediate >= 0:
            # For a small constant compilers emit a move: this is the address of data, not relocated.
            raise EngineRefused(
                "the program uses data outside its input and the state: a constant table, a string or a variable",
                f"instruction {index}",
                "keep it in struct state, or write a switch",
            )
    elif low.source != 1 or high.immediate or not 0 <= low.immediate < maps:
        raise _denied("names a kernel object that is not its own", index)


def _ways(instruction: Instruction, index: int, width: int, length: int, loop: Loop | None) -> tuple[int, ...]:
    """Check an instruction's control flow; return where it may go on."""
    opcode = instruction.opcode
    if not instruction.is_jump:
        return (index + width,)
    if opcode == _EXIT:
        return ()
    if opcode == _CALL:
        if instruction.source == 1:
            raise EngineRefused(
                "the program calls a function that cannot be inlined",
                f"instruction {index}",
                "write it without recursion and without function pointers",
            )
        if instruction.source:
            raise _denied("calls a function of the kernel", index)
        return (index + 1,)
    if opcode == _MAY_GOTO and loop == "may_goto":
        if instruction.source or instruction.destination or instruction.immediate or instruction.offset < 0:
            raise _denied("holds a forged instruction", index)
    elif opcode != _JA and (opcode & 0xF0) not in _CONDITIONAL:
        raise _denied("holds an instruction that the compiler does not emit", index)
    target = index + 1 + instruction.offset
    if not 0 <= target < length:
        raise _denied("jumps out of itself", index)
    return (target,) if opcode == _JA else (index + 1, target)


def _check_calls(calls: list[int], wanted: list[int]) -> None:
    """Compare all calls with the harness's own."""
    for number in calls:
        if number not in wanted:
            raise _denied(f"calls the kernel's helper {_name(number)}")
    for number in set(wanted):
        if calls.count(number) != wanted.count(number):
            raise _denied(f"calls the harness's {_name(number)} itself")


def _name(number: int) -> str:
    if number == _MAP_LOOKUP:
        return "bpf_map_lookup_elem"
    return _HELPER_NAMES.get(number) or ITERATOR_CALLS.get(number) or f"number {number}"


def _denied(what: str, index: int | None = None) -> RunvisorError:
    where = "instructions" if index is None else f"instruction {index}"
    return CapabilityDenied(f"the program {what}", where, "use only its input, the state and local variables")
