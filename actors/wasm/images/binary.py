"""Reads and writes the parts of a WebAssembly module that a snapshot changes; the rest passes through as bytes.

Source: https://webassembly.github.io/spec/core/binary/modules.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_HEADER: Final = b"\0asm\1\0\0\0"
CUSTOM, TYPE, IMPORT, FUNCTION, MEMORY, GLOBAL, EXPORT, START, CODE, DATA, DATA_COUNT = (
    0,
    1,
    2,
    3,
    5,
    6,
    7,
    8,
    10,
    11,
    12,
)
FUNCTION_KIND, TABLE_KIND, MEMORY_KIND, GLOBAL_KIND = range(4)
_I32, _I64, _F32, _F64 = 0x7F, 0x7E, 0x7D, 0x7C
_END: Final = 0x0B

Section = tuple[int, bytes]
"""A section's number and its contents."""


class Unsupported(Exception):
    """The module holds something that this reader does not know."""


@dataclass(frozen=True, slots=True)
class Global:
    """A global that the module defines."""

    type: int
    is_mutable: bool
    initial: bytes
    """The expression, with its end."""


@dataclass(frozen=True, slots=True)
class Export:
    """An export."""

    name: str
    kind: int
    index: int


def unsigned(number: int) -> bytes:
    """Return a number in LEB128.

    Example:
        >>> unsigned(624485).hex()
        'e58e26'
    """
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def signed(number: int) -> bytes:
    """Return a number in signed LEB128.

    Example:
        >>> signed(-123456).hex()
        'c0bb78'
    """
    out = bytearray()
    while not -0x40 <= number < 0x40:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number & 0x7F)
    return bytes(out)


def constant(kind: int, value: float) -> bytes:
    """Return the expression that gives a value of a number type.

    Example:
        >>> constant(0x7F, -1).hex()
        '417f0b'
    """
    end = bytes([_END])
    if kind == _I32:
        return b"\x41" + signed(_wrapped(int(value), 32)) + end
    if kind == _I64:
        return b"\x42" + signed(_wrapped(int(value), 64)) + end
    if kind == _F32:
        return b"\x43" + struct.pack("<f", value) + end
    if kind == _F64:
        return b"\x44" + struct.pack("<d", value) + end
    raise Unsupported(f"a global of type {kind:#x}")


def _wrapped(number: int, bits: int) -> int:
    number &= (1 << bits) - 1
    return number - (1 << bits) if number >> (bits - 1) else number


class Reader:
    """Reads a section's contents from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        """Whether all was read."""
        return self._at >= len(self._data)

    def byte(self) -> int:
        """Read a byte."""
        self._at += 1
        return self._data[self._at - 1]

    def number(self) -> int:
        """Read an unsigned number."""
        result = shift = 0
        while True:
            byte = self.byte()
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    def take(self, size: int) -> bytes:
        """Read so many bytes."""
        self._at += size
        return self._data[self._at - size : self._at]

    def rest(self) -> bytes:
        """Read all that follows."""
        return self.take(len(self._data) - self._at)

    def name(self) -> str:
        """Read a name."""
        return self.take(self.number()).decode()

    def limits(self) -> tuple[int, int, int | None]:
        """Read the limits of a memory or table: flags, least and most."""
        flags, least = self.byte(), self.number()
        return flags, least, self.number() if flags & 1 else None

    def expression(self) -> bytes:
        """Read a constant expression, with its end."""
        began = self._at
        while (code := self.byte()) != _END:
            if code in (0x41, 0x42, 0x23, 0xD2):
                self.number()
            elif code in (0x43, 0x44):
                self.take(4 if code == 0x43 else 8)
            else:
                raise Unsupported(f"the instruction {code:#x} in a constant expression")
        return self._data[began : self._at]


def read_sections(module: bytes) -> list[Section]:
    """Return the sections of a module, in order.

    Raises:
        Unsupported: It is no module.
    """
    if not module.startswith(_HEADER):
        raise Unsupported("not a core module")
    reader = Reader(module[len(_HEADER) :])
    sections: list[Section] = []
    while not reader.is_at_end:
        number = reader.byte()
        sections.append((number, reader.take(reader.number())))
    return sections


def write_sections(sections: Iterable[Section]) -> bytes:
    """Return the module that has these sections."""
    return _HEADER + b"".join(bytes([number]) + unsigned(len(body)) + body for number, body in sections)


def imported(body: bytes, wanted: int) -> int:
    """Return how many functions or globals an import section brings; they come before the module's own.

    Args:
        body: The section's contents.
        wanted: `FUNCTION_KIND` or `GLOBAL_KIND`.
    """
    reader = Reader(body)
    count = 0
    for _ in range(reader.number()):
        reader.name()
        reader.name()
        kind = reader.byte()
        if kind == FUNCTION_KIND:
            reader.number()
        elif kind == TABLE_KIND:
            reader.byte()
            reader.limits()
        elif kind == MEMORY_KIND:
            raise Unsupported("an imported memory")
        else:
            reader.take(2)
        count += kind == wanted
    return count


def read_globals(body: bytes) -> list[Global]:
    """Return what a global section defines."""
    reader = Reader(body)
    return [Global(reader.byte(), reader.byte() == 1, reader.expression()) for _ in range(reader.number())]


def write_globals(items: list[Global]) -> bytes:
    """Return a global section's contents."""
    return unsigned(len(items)) + b"".join(bytes([item.type, item.is_mutable]) + item.initial for item in items)


def read_exports(body: bytes) -> list[Export]:
    """Return what an export section names."""
    reader = Reader(body)
    return [Export(reader.name(), reader.byte(), reader.number()) for _ in range(reader.number())]


def write_exports(items: list[Export]) -> bytes:
    """Return an export section's contents."""
    return unsigned(len(items)) + b"".join(
        unsigned(len(item.name.encode())) + item.name.encode() + bytes([item.kind]) + unsigned(item.index)
        for item in items
    )
