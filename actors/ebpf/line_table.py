"""From an instruction back to the author's line: the line table that LLVM writes beside the instructions.

Source: Documentation/bpf/btf.rst, section 4 (``.BTF.ext``), and the ELF-64 object
format. Runs inside the jail, on what the compiler made of hostile text; the host takes
nothing from it but small numbers.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, TypeAlias

Entry: TypeAlias = tuple[int, int, int]
"""Index of an instruction, and the line and column it came from; line 0 is none of the author's."""

_SECTION_TABLE: Final = struct.Struct("<Q")
_SECTION_TABLE_AT: Final = 40
_SECTION_COUNTS: Final = struct.Struct("<HHH")
_SECTION_COUNTS_AT: Final = 58
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_PAIR: Final = struct.Struct("<II")
_WORD: Final = struct.Struct("<I")
_LINE: Final = struct.Struct("<IIII")
_NO_BITS: Final = 8
_COLUMN_BITS: Final = 10
_INSTRUCTION_BYTES: Final = 8
_INSTRUCTION: Final = struct.Struct("<BBhi")
_MOST: Final = 1 << 20


def read_lines(elf: bytes, function: str, file_name: str) -> tuple[bytes, list[Entry]]:
    """Return a program's instructions and their lines, in order.

    Args:
        elf: An object file of LLVM's BPF target.
        function: The program; bcc gives each a section whose name ends so.
        file_name: How the path of the author's file ends.

    Raises:
        ValueError: The file is not what it should be.
        struct.error: It is cut short.
    """
    sections = _sections(elf)
    name = next((name for name in sections if name.endswith(f".{function}") and not name.startswith(".rel")), "")
    if not {name, ".BTF", ".BTF.ext"} <= sections.keys():
        raise ValueError("an object without the program or its lines")
    texts = _texts(sections[".BTF"])
    data = sections[".BTF.ext"]
    (header_bytes,) = _WORD.unpack_from(data, 4)
    start, size = _PAIR.unpack_from(data, 16)
    at = header_bytes + start
    end = at + size
    (record_bytes,) = _WORD.unpack_from(data, at)
    if record_bytes < _LINE.size:
        raise ValueError("a line table of unknown layout")
    at += _WORD.size
    entries: list[Entry] = []
    while at < end:
        section, count = _PAIR.unpack_from(data, at)
        at += _PAIR.size
        for _ in range(count):
            offset, file, _, place = _LINE.unpack_from(data, at)
            at += record_bytes
            if _text(texts, section) != name:
                continue
            is_authors = _text(texts, file).endswith(file_name)
            line, column = (place >> _COLUMN_BITS, place & ((1 << _COLUMN_BITS) - 1)) if is_authors else (0, 0)
            entries.append((offset // _INSTRUCTION_BYTES, line, column))
    return sections[name], sorted(entries)


class LineTable:
    """Where instructions came from.

    Args:
        entries: From `read_lines`, by way of a process that nobody trusts; what makes no sense is left out.
        shown: The instructions that they are about.
        loaded: Those that will be asked about, where they may differ in registers and order: an
            instruction is then found by what it does and by which of its like it is.

    Example:
        >>> table = LineTable([[0, 0, 0], [3, 7, 12], [5, 0, 0], ["odd"]])
        >>> table.place(4), table.place(5), table.place(1), LineTable(()).place(4)
        ('7:12', None, None, None)
    """

    def __init__(self, entries: Iterable[object], shown: bytes = b"", loaded: bytes = b"") -> None:
        self._shown, self._loaded = shown, loaded
        self._entries = sorted(
            (index, line, column)
            for index, line, column in (entry for entry in entries if isinstance(entry, list) and len(entry) == 3)
            if all(isinstance(number, int) and 0 <= number < _MOST for number in (index, line, column))
        )

    @classmethod
    def unknown(cls, timeout_s: float = 0.0) -> LineTable:
        """Return the table that knows no line."""
        del timeout_s
        return cls(())

    def place(self, instruction: int) -> str | None:
        """Return ``line:column`` of an instruction, or None if it is none of the author's."""
        counterpart = self._counterpart(instruction)
        if counterpart is None:
            return None
        at = bisect_right(self._entries, (counterpart, _MOST, _MOST))
        if not at or not self._entries[at - 1][1]:
            return None
        return self._named(self._entries[at - 1])

    def nearest(self, instruction: int) -> str | None:
        """Return ``line:column`` of an instruction of the author's, or of the nearest that is known to be."""
        counterpart = self._counterpart(instruction)
        instruction = instruction if counterpart is None else counterpart
        known = [entry for entry in self._entries if entry[1]]
        return self._named(min(known, key=lambda entry: abs(entry[0] - instruction))) if known else None

    def _counterpart(self, instruction: int) -> int | None:
        """Return which of the instructions shown is the one that was loaded, if there is no doubt."""
        if self._shown == self._loaded:
            return instruction
        loaded, shown = _acts(self._loaded), _acts(self._shown)
        if instruction >= len(loaded):
            return None
        alike = [index for index, act in enumerate(loaded) if act == loaded[instruction]]
        there = [index for index, act in enumerate(shown) if act == loaded[instruction]]
        return there[alike.index(instruction)] if len(alike) == len(there) else None

    @staticmethod
    def _named(entry: Entry) -> str:
        return f"{entry[1]}:{max(1, entry[2])}"


def _acts(code: bytes) -> list[tuple[int, int, int]]:
    """Return what each instruction does, whatever registers it does it with."""
    whole = code[: len(code) // _INSTRUCTION_BYTES * _INSTRUCTION_BYTES]
    return [(opcode, offset, immediate) for opcode, _, offset, immediate in _INSTRUCTION.iter_unpack(whole)]


def _sections(elf: bytes) -> dict[str, bytes]:
    (table,) = _SECTION_TABLE.unpack_from(elf, _SECTION_TABLE_AT)
    entry_bytes, count, names_index = _SECTION_COUNTS.unpack_from(elf, _SECTION_COUNTS_AT)
    headers = [_SECTION.unpack_from(elf, table + number * entry_bytes) for number in range(count)]
    if not names_index < count:
        raise ValueError("an object without names")
    contents = [b"" if header[1] == _NO_BITS else elf[header[4] : header[4] + header[5]] for header in headers]
    return {_text(contents[names_index], header[0]): content for header, content in zip(headers, contents, strict=True)}


def _texts(btf: bytes) -> bytes:
    (header_bytes,) = _WORD.unpack_from(btf, 4)
    start, size = _PAIR.unpack_from(btf, 16)
    return btf[header_bytes + start : header_bytes + start + size]


def _text(texts: bytes, at: int) -> str:
    end = texts.find(b"\0", at)
    return texts[at : end if end >= 0 else len(texts)].decode(errors="replace")
