"""A small assembler for programs of ours that are a handful of instructions: no compiler, and each step can be read.

Source: RFC 9669 (the instruction set), include/uapi/linux/bpf.h (numbers of helpers).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)
"""The registers: R0 has results, R1 to R5 arguments, R6 to R9 outlive calls, R10 is the frame."""

MAP_LOOKUP: Final = 1
GET_NETNS_COOKIE: Final = 122

Size = Literal[1, 2, 4, 8]

_INSTRUCTION: Final = struct.Struct("<BBhi")
_SIZES: Final[dict[Size, int]] = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_MAP_DESCRIPTOR: Final = 1


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, or the second half of a wide one."""

    opcode: int
    to: int = 0
    source: int = 0
    offset: int = 0
    immediate: int = 0
    target: str = ""
    """Where it jumps to, if it jumps."""


@dataclass(frozen=True, slots=True)
class Label:
    """A place that is jumped to."""

    name: str


Step = Instruction | Label


def copy(to: int, source: int) -> list[Step]:
    """``to = source``."""
    return [Instruction(0xBF, to, source)]


def put(to: int, value: int) -> list[Step]:
    """``to = value``, of 32 bits with a sign."""
    return [Instruction(0xB7, to, immediate=value)]


def put_wide(to: int, value: int) -> list[Step]:
    """``to = value``, of 64 bits without a sign."""
    low, high = struct.unpack("<ii", struct.pack("<Q", value))
    return [Instruction(0x18, to, immediate=low), Instruction(0, immediate=high)]


def put_map(to: int, descriptor: int) -> list[Step]:
    """``to = `` the map behind a descriptor."""
    return [Instruction(0x18, to, _MAP_DESCRIPTOR, immediate=descriptor), Instruction(0)]


def add(to: int, value: int) -> list[Step]:
    """``to += value``."""
    return [Instruction(0x07, to, immediate=value)]


def load(size: Size, to: int, base: int, offset: int) -> list[Step]:
    """``to = *(base + offset)``."""
    return [Instruction(0x61 | _SIZES[size], to, base, offset)]


def store(size: Size, base: int, offset: int, source: int) -> list[Step]:
    """``*(base + offset) = source``."""
    return [Instruction(0x63 | _SIZES[size], base, source, offset)]


def store_value(size: Size, base: int, offset: int, value: int) -> list[Step]:
    """``*(base + offset) = value``."""
    return [Instruction(0x62 | _SIZES[size], base, 0, offset, value)]


def jump_if_equal(left: int, value: int, target: str) -> list[Step]:
    """Go on at a label if a register holds a value."""
    return [Instruction(0x15, left, immediate=value, target=target)]


def jump_if_not_equal(left: int, value: int, target: str) -> list[Step]:
    """Go on at a label unless a register holds a value."""
    return [Instruction(0x55, left, immediate=value, target=target)]


def jump_if_same(left: int, right: int, target: str) -> list[Step]:
    """Go on at a label if two registers hold the same."""
    return [Instruction(0x1D, left, right, target=target)]


def jump_if_above(left: int, right: int, target: str) -> list[Step]:
    """Go on at a label if ``left > right``, both without a sign."""
    return [Instruction(0x2D, left, right, target=target)]


def call(helper: int) -> list[Step]:
    """Call a helper of the kernel's; its answer is in R0, and R1 to R5 are lost."""
    return [Instruction(0x85, immediate=helper)]


def leave(value: int) -> list[Step]:
    """End the program with a value."""
    return [*put(R0, value), Instruction(0x95)]


def label(name: str) -> list[Step]:
    """Name the place of the next instruction."""
    return [Label(name)]


def assemble(*parts: list[Step]) -> bytes:
    """Return the instructions as the kernel takes them, with jumps resolved.

    Raises:
        ValueError: A label is missing, stands twice, or lies behind the jump: nothing here loops.

    Example:
        >>> assemble(put(R0, 1), jump_if_equal(R0, 1, "end"), put(R0, 0), label("end"), leave(1)).hex(" ", 8)
        'b700000001000000 1500010001000000 b700000000000000 b700000001000000 9500000000000000'
    """
    places: dict[str, int] = {}
    instructions: list[Instruction] = []
    for step in (step for part in parts for step in part):
        if isinstance(step, Instruction):
            instructions.append(step)
        elif step.name in places:
            raise ValueError(f"the label {step.name} stands twice")
        else:
            places[step.name] = len(instructions)
    return b"".join(_encode(instruction, index, places) for index, instruction in enumerate(instructions))


def _encode(instruction: Instruction, index: int, places: dict[str, int]) -> bytes:
    offset = instruction.offset
    if instruction.target:
        if instruction.target not in places:
            raise ValueError(f"there is no label {instruction.target}")
        offset = places[instruction.target] - index - 1
        if offset < 0:
            raise ValueError(f"the label {instruction.target} lies behind its jump")
    registers = instruction.to | instruction.source << 4
    return _INSTRUCTION.pack(instruction.opcode, registers, offset, instruction.immediate)
