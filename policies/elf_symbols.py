"""Where a function lies in an ELF file: its place in the file, by its name in the symbol tables.

The file may be anything at all, so every read has a bound and whatever does not fit is an
error. Nothing is kept of it.

Source: the System V ABI, chapters 4 and 5 (headers, sections, symbols, program headers), and
the Linux Standard Base, "Symbol Versioning".
"""

from __future__ import annotations

import difflib
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from runvisor.policies.errors import ConfigError

Reader = Callable[[int, int], bytes]
"""Returns bytes of a file: from where, and how many at most; fewer at its end."""
MAX_TABLE_BYTES: Final = 64 * 1024 * 1024
"""Of a symbol table, and of its names."""
MAX_READ_BYTES: Final = 4 * MAX_TABLE_BYTES
"""Of a file in all, however often its parts name the same bytes."""
_MAX_SECTIONS: Final = 4096
_MAX_SEGMENTS: Final = 256
_MAX_VERSIONS: Final = 4096
_MAX_NAME: Final = 512
_MAX_SAME: Final = 1000
"""Symbols of one name that are looked at."""
_NEAR: Final = 3
_MAX_LOOKED_AT: Final = 5000
"""Names of a file that are looked at as being near another, in all its tables."""
_MAX_NEAR: Final = 200
"""Of them, those that are compared with it: that takes the product of both lengths, and more if they are alike."""
_MAX_NEAR_SYMBOL: Final = 64
"""Names longer than that have none that are near."""
_NEAR_LENGTHS: Final = 2
"""A near name has at most so many times the length."""
_HEADER: Final = struct.Struct("<4sBBBB8xHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_DEFINITION: Final = struct.Struct("<HHHHIII")
_DEFINITION_NAME: Final = struct.Struct("<II")
_SYMBOL: Final = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_CLASS_64, _LITTLE_ENDIAN = 2, 1
_EXECUTABLE, _SHARED = 2, 3
_LOAD, _X = 1, 1
_SYMBOLS, _DYNAMIC_SYMBOLS = 2, 11
_VERSION_DEFINITIONS, _VERSIONS = 0x6FFFFFFD, 0x6FFFFFFF
_FUNCTION, _INDIRECT = 2, 10
_HIDDEN: Final = 0x8000
_MACHINES: Final = {"x86_64": 62, "aarch64": 183}
_Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Function:
    """A function, as a symbol table has it."""

    address: int
    size: int
    """0 if the table does not say."""
    version: str
    is_default: bool
    """It is the version that a program linked now would get."""
    is_indirect: bool
    """A function that chooses the function, when the program is loaded (``STT_GNU_IFUNC``)."""


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int


def function_offset(read: Reader, symbol: str, *, version: str = "", plus: int = 0, machine: str = "x86_64") -> int:
    """Return how many bytes from the file's start a function's code lies.

    Args:
        read: Reads the file.
        symbol: The function's name.
        version: Of the symbol; empty for the default one.
        plus: Bytes behind the function's start, within it.
        machine: Whose code the file must hold.

    Raises:
        ConfigError: It is no such file, or damaged, or has no such function; names those of nearly its name.
    """
    left = MAX_READ_BYTES

    def read_bounded(at: int, size: int) -> bytes:
        nonlocal left
        left -= size
        if left < 0:
            raise _not_readable(f"its symbols take more than {MAX_READ_BYTES} bytes")
        return read(at, size)

    try:
        return _function_offset(read_bounded, symbol, version, plus, machine)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise _not_readable(str(error)) from None


def _function_offset(read: Reader, symbol: str, version: str, plus: int, machine: str) -> int:
    header = _HEADER.unpack(_exactly(read, 0, _HEADER.size))
    magic, width, order, _, _, kind, of_machine = header[:7]
    segments_at, sections_at = header[9:11]
    segment_bytes, segments, section_bytes, sections = header[13:17]
    if magic != b"\x7fELF" or (width, order) != (_CLASS_64, _LITTLE_ENDIAN) or kind not in (_EXECUTABLE, _SHARED):
        raise _not_readable("it is no ELF file of 64 bits")
    if of_machine != _MACHINES.get(machine):
        raise _not_readable(f"its code is not for {machine}")
    if segment_bytes != _SEGMENT.size or segments > _MAX_SEGMENTS:
        raise _not_readable("its program headers are of another kind")
    table = list(_sections(read, sections_at, section_bytes, sections))
    found: list[Function] = []
    near = _NearNames(symbol)
    for index, section in enumerate(table):
        if section.kind in (_SYMBOLS, _DYNAMIC_SYMBOLS):
            symbols, names = _symbol_table(read, section, table)
            found += _named(read, symbol, symbols, names, table, index)
            near.look(symbols, names)
    chosen = _chosen(found, symbol, version, near)
    if plus and not plus < chosen.size:
        raise ConfigError(f"{symbol} has {chosen.size} bytes, and none at {plus}", "program", "give a smaller offset")
    return _file_offset(
        _SEGMENT.iter_unpack(_exactly(read, segments_at, segments * _SEGMENT.size)), chosen.address + plus
    )


def _chosen(found: Iterable[Function], symbol: str, version: str, near: _NearNames) -> Function:
    """Return the one function of a name."""
    fitting = [one for one in found if not version or one.version == version]
    fitting = [one for one in fitting if one.is_default] or fitting
    # The same function stands in both tables, and may have several versions.
    by_address = {one.address: one for one in sorted(fitting, key=lambda one: one.size)}
    if not by_address:
        what = f"{symbol}@{version}" if version else symbol
        close = difflib.get_close_matches(symbol, sorted(near.found), _NEAR)
        versions = sorted({one.version for one in found if _is_plain(one.version)})
        close = [f"{symbol}@{each}" for each in versions[:_NEAR]] or close
        raise ConfigError(
            f"the file has no function {what}",
            "program",
            f"use {' or '.join(close)}" if close else "nm -D and nm show what there is",
        )
    if len(by_address) > 1:
        raise ConfigError(
            f"the file has {len(by_address)} functions called {symbol}", "program", "name one that is there once"
        )
    (one,) = by_address.values()
    if one.is_indirect:
        raise ConfigError(
            f"{symbol} is chosen among several functions when a program is loaded (an ifunc)",
            "program",
            "name the variant that this machine uses, if the file names it",
        )
    return one


def _file_offset(segments: Iterable[tuple[int, ...]], address: int) -> int:
    """Return where in the file the code at an address lies."""
    for kind, flags, offset, start, _, size, _, _ in segments:
        if kind == _LOAD and flags & _X and start <= address < start + size:
            return offset + address - start
    raise _not_readable("the function lies in no part that holds code")


def _sections(read: Reader, at: int, size: int, count: int) -> Iterator[_Section]:
    if not at:
        return
    if size != _SECTION.size:
        raise _not_readable("its section headers are of another kind")
    if not count:  # more than fit into the header: the first section says it
        count = _SECTION.unpack(_exactly(read, at, _SECTION.size))[5]
    if count > _MAX_SECTIONS:
        raise _not_readable(f"it has {count} sections")
    for _, kind, _, _, offset, length, link, _, _, _ in _SECTION.iter_unpack(_exactly(read, at, count * size)):
        yield _Section(kind, offset, length, link)


def _symbol_table(read: Reader, section: _Section, table: list[_Section]) -> tuple[_Array, _Array]:
    """Return a table's symbols, and the bytes of their names, with zeros behind them."""
    names = table[section.link]
    for each in (section, names):
        if each.size > MAX_TABLE_BYTES:
            raise _not_readable(f"its symbols take more than {MAX_TABLE_BYTES} bytes")
    whole = section.size - section.size % _SYMBOL.itemsize
    texts = _exactly(read, names.offset, names.size) + bytes(_MAX_NAME + 2)
    symbols = np.frombuffer(_exactly(read, section.offset, whole), _SYMBOL)
    return symbols, np.frombuffer(texts, np.uint8)


def _named(
    read: Reader, symbol: str, symbols: _Array, names: _Array, table: list[_Section], index: int
) -> Iterator[Function]:
    """Yield the functions of a name in one table."""
    wanted = symbol.encode()
    if len(wanted) > _MAX_NAME:
        return
    places = symbols["name"].astype(np.int64)
    rows = _functions(symbols, names)
    for number, byte in enumerate(wanted):
        rows = rows[names[places[rows] + number] == byte]
    ends = names[places[rows] + len(wanted)]
    rows = rows[(ends == 0) | (ends == ord("@"))]
    versions = _Versions(read, table, index) if table[index].kind == _DYNAMIC_SYMBOLS else None
    for row in rows[:_MAX_SAME].tolist():
        version, is_default = "", True
        suffix = bytes(names[places[row] + len(wanted) :][:_MAX_NAME]).partition(b"\0")[0]
        if suffix:
            version, is_default = suffix.lstrip(b"@").decode(errors="replace"), suffix.startswith(b"@@")
        elif versions is not None:
            version, is_default = versions.of(row)
        one = symbols[row]
        yield Function(int(one["value"]), int(one["size"]), version, is_default, int(one["info"]) & 15 == _INDIRECT)


def _functions(symbols: _Array, names: _Array) -> _Array:
    """Return the rows that define functions."""
    kinds = symbols["info"] & 15
    is_function = (kinds == _FUNCTION) | (kinds == _INDIRECT)
    has_name = symbols["name"] < len(names) - _MAX_NAME - 2
    return np.flatnonzero(is_function & has_name & (symbols["section"] != 0))


class _NearNames:
    """Names of functions that begin as another does; so few, and so short, that comparing them is soon done."""

    def __init__(self, symbol: str) -> None:
        self._symbol = symbol
        self._left = _MAX_LOOKED_AT if len(symbol) <= _MAX_NEAR_SYMBOL else 0
        self.found: set[str] = set()

    def look(self, symbols: _Array, names: _Array) -> None:
        """Add those of one table."""
        if not self._left:
            return
        places = symbols["name"].astype(np.int64)
        rows = _functions(symbols, names)
        for number, byte in enumerate(self._symbol.encode()[:2]):
            rows = rows[names[places[rows] + number] == byte]
        longest = _NEAR_LENGTHS * len(self._symbol)
        for row in rows[: self._left].tolist():
            if len(self.found) == _MAX_NEAR:
                self._left = 0
                return
            self._left -= 1
            text = (
                bytes(names[places[row] :][: longest + 1])
                .partition(b"\0")[0]
                .partition(b"@")[0]
                .decode(errors="replace")
            )
            if len(text) <= longest and text != self._symbol and _is_plain(text):
                self.found.add(text)


def _is_plain(text: str) -> bool:
    """Whether a name of the file's can be told: it may be any bytes."""
    return bool(text) and text.isascii() and text.isprintable()


class _Versions:
    """The versions of a table's symbols."""

    def __init__(self, read: Reader, table: list[_Section], symbols: int) -> None:
        self._numbers: _Array = np.zeros(0, "<u2")
        self._names: dict[int, str] = {}
        for section in table:
            if section.kind == _VERSIONS and section.link == symbols:
                size = min(section.size, MAX_TABLE_BYTES) & ~1
                self._numbers = np.frombuffer(_exactly(read, section.offset, size), "<u2")
            elif section.kind == _VERSION_DEFINITIONS:
                self._read_names(read, section, table[section.link])

    def of(self, row: int) -> tuple[str, bool]:
        """Return a symbol's version, and whether it is the default one."""
        number = int(self._numbers[row]) if row < len(self._numbers) else 1
        return self._names.get(number & ~_HIDDEN, ""), not number & _HIDDEN

    def _read_names(self, read: Reader, section: _Section, texts: _Section) -> None:
        if max(section.size, texts.size) > MAX_TABLE_BYTES:
            raise _not_readable(f"its versions take more than {MAX_TABLE_BYTES} bytes")
        data, names, at = _exactly(read, section.offset, section.size), _exactly(read, texts.offset, texts.size), 0
        for _ in itertools.repeat(None, _MAX_VERSIONS):
            _, _, number, _, _, name_at, ahead = _DEFINITION.unpack_from(data, at)
            name, _ = _DEFINITION_NAME.unpack_from(data, at + name_at)
            self._names[number] = names[name : name + _MAX_NAME].partition(b"\0")[0].decode(errors="replace")
            if not ahead:
                return
            at += ahead


def _exactly(read: Reader, at: int, size: int) -> bytes:
    if size > MAX_TABLE_BYTES or at >= 1 << 62:
        raise _not_readable("it names parts that cannot be")
    data = read(at, size)
    if len(data) != size:
        raise _not_readable("it ends before what it names")
    return data


def _not_readable(why: str) -> ConfigError:
    return ConfigError(f"the file's functions cannot be read: {why}", "program", "name a program or a library")
