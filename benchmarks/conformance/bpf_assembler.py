"""The assembly of the eBPF conformance suite, as instructions.

Sources: RFC 9669 (BPF Instruction Set Architecture) for the encoding; the suite's own
cases for the mnemonics.
"""

from __future__ import annotations

import re
import struct
from typing import Final

_INSTRUCTION: Final = struct.Struct("<BBhi")
_ALU: Final = {
    "add": 0x0, "sub": 0x1, "mul": 0x2, "div": 0x3, "or": 0x4, "and": 0x5, "lsh": 0x6, "rsh": 0x7,
    "neg": 0x8, "mod": 0x9, "xor": 0xA, "mov": 0xB, "arsh": 0xC, "sdiv": 0x3, "smod": 0x9,
}  # fmt: skip
_SIGNED: Final = frozenset(("sdiv", "smod"))
_JUMPS: Final = {
    "ja": 0x0, "jeq": 0x1, "jgt": 0x2, "jge": 0x3, "jset": 0x4, "jne": 0x5, "jsgt": 0x6, "jsge": 0x7,
    "jlt": 0xA, "jle": 0xB, "jslt": 0xC, "jsle": 0xD,
}  # fmt: skip
_LOADS: Final = {
    "ldxw": 0x61, "ldxh": 0x69, "ldxb": 0x71, "ldxdw": 0x79, "ldxsw": 0x81, "ldxsh": 0x89, "ldxsb": 0x91,
}  # fmt: skip
_STORES: Final = {"stw": 0x62, "sth": 0x6A, "stb": 0x72, "stdw": 0x7A}
_REGISTER_STORES: Final = {"stxw": 0x63, "stxh": 0x6B, "stxb": 0x73, "stxdw": 0x7B}
_ATOMICS: Final = {"add": 0x00, "or": 0x40, "and": 0x50, "xor": 0xA0, "xchg": 0xE1, "cmpxchg": 0xF1}
_ENDS: Final = {"le": 0xD4, "be": 0xDC, "swap": 0xD7, "bswap": 0xD7}
_CALL, _EXIT, _LDDW = 0x85, 0x95, 0x18
_REGISTER_SOURCE, _FETCH = 0x08, 0x01
_LOCAL: Final = 1
_SIGN_EXTENSION: Final = re.compile(r"movsx(8|16|32)(32|64)")
_END: Final = re.compile(r"(le|be|swap|bswap)(16|32|64)")
_WIDTH: Final = re.compile(r"([a-z]+)(32|64)?")
_REGISTER: Final = re.compile(r"%r(\d+)")
_PLACE: Final = re.compile(r"\[%r(\d+)\s*(?:([+-])\s*(\w+))?\]")


class AssemblyError(ValueError):
    """The text is not of the suite's assembly."""


def assemble(text: str) -> bytes:
    r"""Return the instructions of a case.

    Raises:
        AssemblyError: A line of it is unknown.

    Example:
        >>> assemble("mov %r0, 7\nexit").hex(" ", 8)
        'b700000007000000 9500000000000000'
    """
    code: list[bytes] = []
    labels: dict[str, int] = {}
    targets: list[tuple[int, str]] = []
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        if line.endswith(":"):
            labels[line[:-1]] = len(code)
            continue
        if line == "exit":
            labels.setdefault("exit", len(code))
        name, _, rest = line.partition(" ")
        operands = [operand.strip() for operand in rest.split(",")] if rest else []
        try:
            words, target = _encode(name, operands)
        except (IndexError, KeyError, ValueError, struct.error) as error:
            raise AssemblyError(f"{line!r}: {error}") from None
        if target:
            targets.append((len(code), target))
        code += words
    for at, target in targets:
        if target[0] not in "+-" and target not in labels:
            raise AssemblyError(f"there is no label {target!r}")
        code[at] = _aimed(code[at], target, at, labels)
    return b"".join(code)


def _encode(name: str, operands: list[str]) -> tuple[list[bytes], str]:
    """Return one line's instructions, and the target that it jumps to."""
    if name == "exit":
        return [_word(_EXIT)], ""
    if name == "call":
        mode, _, target = operands[0].rpartition(" ")
        if mode == "local":
            return [_word(_CALL, source=_LOCAL)], target
        if register := _REGISTER.fullmatch(target):
            return [_word(_CALL | _REGISTER_SOURCE, int(register[1]))], ""
        return [_word(_CALL, immediate=_number(target, 32))], ""
    if name == "lddw":
        value = _number(operands[1], 64) & (1 << 64) - 1
        return [_word(_LDDW, _register(operands[0]), immediate=value), _word(0, immediate=value >> 32)], ""
    if name == "lock":
        return [_atomic(operands)], ""
    if name in _LOADS:
        source, offset = _place(operands[1])
        return [_word(_LOADS[name], _register(operands[0]), source, offset)], ""
    if name in _STORES or name in _REGISTER_STORES:
        destination, offset = _place(operands[0])
        if name in _REGISTER_STORES:
            return [_word(_REGISTER_STORES[name], destination, _register(operands[1]), offset)], ""
        return [_word(_STORES[name], destination, 0, offset, _number(operands[1], 32))], ""
    if found := _END.fullmatch(name):
        return [_word(_ENDS[found[1]], _register(operands[0]), immediate=int(found[2]))], ""
    if found := _SIGN_EXTENSION.fullmatch(name):
        opcode = 0xBC if found[2] == "32" else 0xBF
        return [_word(opcode, _register(operands[0]), _register(operands[1]), int(found[1]))], ""
    found = _WIDTH.fullmatch(name)
    if found is None:
        raise AssemblyError(name)
    stem, narrow = found[1], found[2] == "32"
    if stem in _JUMPS:
        return _jump(stem, operands, narrow=narrow)
    opcode = _ALU[stem] << 4 | (0x04 if narrow else 0x07)
    return [_with_source(opcode, _register(operands[0]), operands[1:], int(stem in _SIGNED))], ""


def _jump(stem: str, operands: list[str], *, narrow: bool) -> tuple[list[bytes], str]:
    opcode = _JUMPS[stem] << 4 | (0x06 if narrow else 0x05)
    if stem == "ja":
        return [_word(opcode)], operands[0]
    return [_with_source(opcode, _register(operands[0]), operands[1:2])], operands[2]


def _atomic(operands: list[str]) -> bytes:
    before, bracket, place = operands[0].partition("[")
    words = before.split()
    found = _WIDTH.fullmatch(words[-1])
    if found is None:
        raise AssemblyError(before)
    action = _ATOMICS[found[1]] | (_FETCH if words[0] == "fetch" else 0)
    destination, offset = _place(bracket + place)
    return _word(0xC3 if found[2] == "32" else 0xDB, destination, _register(operands[1]), offset, action)


def _with_source(opcode: int, destination: int, sources: list[str], offset: int = 0) -> bytes:
    """Return an instruction with one more operand, or none: a register or a number."""
    if not sources:
        return _word(opcode, destination)
    if sources[0].startswith("%"):
        return _word(opcode | _REGISTER_SOURCE, destination, _register(sources[0]), offset)
    return _word(opcode, destination, 0, offset, _number(sources[0], 32))


def _aimed(word: bytes, target: str, at: int, labels: dict[str, int]) -> bytes:
    """Return a jump or a local call with its distance."""
    distance = int(target, 0) if target[0] in "+-" else labels[target] - at - 1
    opcode, registers, offset, immediate = _INSTRUCTION.unpack(word)
    if opcode in (_CALL, 0x06):  # the two whose distance has 32 bits
        return _INSTRUCTION.pack(opcode, registers, offset, distance)
    return _INSTRUCTION.pack(opcode, registers, distance, immediate)


def _register(text: str) -> int:
    found = _REGISTER.fullmatch(text)
    if found is None:
        raise AssemblyError(f"{text!r} is no register")
    return int(found[1])


def _place(text: str) -> tuple[int, int]:
    found = _PLACE.fullmatch(text)
    if found is None:
        raise AssemblyError(f"{text!r} is no place in memory")
    offset = int(found[3], 0) if found[3] else 0
    return int(found[1]), _signed(-offset if found[2] == "-" else offset, 16)


def _number(text: str, bits: int) -> int:
    return _signed(int(text, 0), bits)


def _signed(value: int, bits: int) -> int:
    """Return the signed number of the same bits."""
    if not -(1 << bits - 1) <= value < 1 << bits:
        raise AssemblyError(f"{value} has more than {bits} bits")
    return value - (1 << bits) if value >= 1 << bits - 1 else value


def _word(opcode: int, destination: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return _INSTRUCTION.pack(opcode, source << 4 | destination, offset, _signed(immediate & 0xFFFFFFFF, 32))
