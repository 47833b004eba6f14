"""The cases of the eBPF conformance suite, and which of them a program of ours can be.

Whether a case applies is told from its text and its instructions alone, before anything
runs: by the program type (a socket filter), by what such a program may call here
(nothing), and by what the kernel's verifier refuses whatever the outcome would be.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.conformance.bpf_assembler import assemble

LISTED: Final = Path(__file__).with_name("bpf_cases.txt")
"""Every case of the suite with ``applies``, or why it does not."""
APPLIES: Final = "applies"
_INSTRUCTION: Final = struct.Struct("<BBhi")
_CALL, _CALLX = 0x85, 0x8D
_LOCAL: Final = 1
_SHIFTS: Final = {0x64: 32, 0x74: 32, 0xC4: 32, 0x67: 64, 0x77: 64, 0xC7: 64}


@dataclass(frozen=True, slots=True)
class Case:
    """One case."""

    name: str
    instructions: bytes
    memory: bytes | None
    """What the first argument leads to; the second is its size."""
    result: int
    """What must lie in register 0 in the end."""


def cases(folder: Path) -> Iterator[Case]:
    """Read the suite's cases.

    Args:
        folder: A checkout of the suite.

    Raises:
        AssemblyError: One is not of the assembly that is known.
    """
    for path in sorted((folder / "tests").glob("*.data")):
        yield read_case(path.stem, path.read_text())


def read_case(name: str, text: str) -> Case:
    r"""Read one case.

    Example:
        >>> case = read_case("add", "-- asm\nmov %r0, 1\nexit\n-- mem\n00 ff\n-- result\n0x1\n")
        >>> case.memory, case.result, len(case.instructions)
        (b'\x00\xff', 1, 16)
    """
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("-- "):
            lines = sections.setdefault(line[3:].strip(), [])
        else:
            lines.append(line)
    memory = bytes.fromhex(" ".join(sections["mem"])) if "mem" in sections else None
    result = int(" ".join(sections["result"]).split()[0], 0)
    return Case(name, assemble("\n".join(sections["asm"])), memory, result)


def verdict(case: Case) -> str:
    r"""Return `APPLIES`, or the rule that says that a case does not.

    Example:
        >>> verdict(read_case("callx", "-- asm\nmov %r2, 5\ncall %r2\nexit\n-- result\n0"))
        'calls by register, which the kernel has no instruction for'
    """
    return next((why for rule, why in _RULES if rule(case)), APPLIES)


def listed() -> dict[str, str]:
    """Return the committed list: what `verdict` says, by case."""
    rows = (line.partition(": ") for line in LISTED.read_text().splitlines() if line and not line.startswith("#"))
    return {name: what for name, _, what in rows}


def _words(case: Case) -> Iterator[tuple[int, int, int, int]]:
    """Yield opcode, source, offset and immediate of each instruction."""
    words = _INSTRUCTION.iter_unpack(case.instructions)
    for opcode, registers, offset, immediate in words:
        yield opcode, registers >> 4, offset, immediate
        if opcode == 0x18:
            next(words)


def _calls_by_register(case: Case) -> bool:
    return any(opcode == _CALLX for opcode, *_ in _words(case))


def _calls_a_helper(case: Case) -> bool:
    return any(opcode == _CALL and source != _LOCAL for opcode, source, *_ in _words(case))


def _shifts_too_far(case: Case) -> bool:
    return any(opcode in _SHIFTS and not 0 <= immediate < _SHIFTS[opcode] for opcode, _, _, immediate in _words(case))


_RULES: Final[tuple[tuple[Callable[[Case], bool], str], ...]] = (
    (_calls_by_register, "calls by register, which the kernel has no instruction for"),
    (_calls_a_helper, "calls a helper, and programs here call none"),
    (_shifts_too_far, "shifts by a constant beyond the width, which the verifier refuses"),
)
