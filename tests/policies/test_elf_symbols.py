"""Functions in ELF files: by name and version in whole files; in any others never worse than an error."""

from __future__ import annotations

import contextlib
import difflib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies import elf_symbols
from runvisor.policies.elf_symbols import function_offset
from runvisor.policies.errors import ConfigError

FUNC, OBJECT, IFUNC = 2, 1, 10
CODE_AT, CODE_OFFSET, CODE_BYTES = 0x401000, 0x1000, 0x800
HIDDEN = 0x8000


@dataclass
class Names:
    """A table of names."""

    data: bytes = b"\0"

    def add(self, text: str) -> int:
        at = len(self.data)
        self.data += text.encode() + b"\0"
        return at


@dataclass
class Elf:
    """A file with one part of code, and symbols: (name, kind, address, size, version number)."""

    symbols: list[tuple[str, int, int, int]] = field(default_factory=list)
    dynamic: list[tuple[str, int, int, int, int]] = field(default_factory=list)
    versions: dict[int, str] = field(default_factory=dict)
    machine: int = 62
    kind: int = 3

    def build(self) -> bytes:
        names, dynamic_names = Names(), Names()
        symbols = bytes(24) + b"".join(self._symbol(names.add(name), *rest) for name, *rest in self.symbols)
        dynamic = bytes(24) + b"".join(self._symbol(dynamic_names.add(each[0]), *each[1:4]) for each in self.dynamic)
        numbers = struct.pack("<H", 0) + b"".join(struct.pack("<H", each[4]) for each in self.dynamic)
        definitions = b""
        for place, (number, name) in enumerate(self.versions.items(), 1):
            ahead = 28 if place < len(self.versions) else 0
            definitions += struct.pack("<HHHHIII", 1, 0, number, 1, 0, 20, ahead)
            definitions += struct.pack("<II", dynamic_names.add(name), 0)
        parts = [
            (2, symbols, 2),
            (3, names.data, 0),
            (11, dynamic, 4),
            (3, dynamic_names.data, 0),
            (0x6FFFFFFF, numbers, 3),
            (0x6FFFFFFD, definitions, 4),
        ]
        at = CODE_OFFSET + CODE_BYTES
        headers, bodies = bytes(64), b""
        for kind, body, link in parts:
            headers += struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, at + len(bodies), len(body), link, 0, 8, 24)
            bodies += body
        segment = struct.pack("<IIQQQQQQ", 1, 5, CODE_OFFSET, CODE_AT, CODE_AT, CODE_BYTES, CODE_BYTES, 4096)
        header = struct.pack(
            "<4sBBBB8xHHIQQQIHHHHHH",
            *(b"\x7fELF", 2, 1, 1, 0),
            *(self.kind, self.machine, 1, CODE_AT, 64, at + len(bodies), 0, 64),
            *(56, 1, 64, len(parts) + 1, 0),
        )
        return (header + segment).ljust(at, b"\x90") + bodies + headers

    @staticmethod
    def _symbol(name: int, kind: int, address: int, size: int) -> bytes:
        return struct.pack("<IBBHQQ", name, 0x10 | kind, 0, 1 if address else 0, address, size)


WHOLE = Elf(
    symbols=[
        ("work", FUNC, CODE_AT + 0x10, 0x20),
        ("twice", FUNC, CODE_AT + 0x40, 8),
        ("twice", FUNC, CODE_AT + 0x50, 8),
        ("chosen", IFUNC, CODE_AT + 0x60, 8),
        ("table", OBJECT, CODE_AT + 0x70, 8),
        ("elsewhere", FUNC, CODE_AT + CODE_BYTES, 8),
        ("only_named", FUNC, 0, 0),
        ("named@@V2", FUNC, CODE_AT + 0x80, 8),
        ("named@V1", FUNC, CODE_AT + 0x90, 8),
    ],
    dynamic=[
        ("work", FUNC, CODE_AT + 0x10, 0x20, 2),
        ("copy", FUNC, CODE_AT + 0x100, 16, 2 | HIDDEN),
        ("copy", FUNC, CODE_AT + 0x120, 16, 3),
    ],
    versions={1: "lib", 2: "LIB_1.0", 3: "LIB_2.0"},
).build()


def find(data: bytes, symbol: str, version: str = "", plus: int = 0) -> int:
    """Look in a file, never reading beyond the bounds."""

    def read(at: int, size: int) -> bytes:
        assert at >= 0
        assert 0 <= size <= elf_symbols.MAX_TABLE_BYTES
        return data[at : at + size]

    return function_offset(read, symbol, version=version, plus=plus)


@pytest.mark.parametrize(
    ("symbol", "version", "plus", "address"),
    [
        ("work", "", 0, 0x10),
        ("work", "", 0x1F, 0x2F),
        ("work", "LIB_1.0", 0, 0x10),
        ("copy", "", 0, 0x120),
        ("copy", "LIB_1.0", 0, 0x100),
        ("copy", "LIB_2.0", 0, 0x120),
        ("named", "", 0, 0x80),
        ("named", "V1", 0, 0x90),
    ],
)
def test_a_function_lies_where_its_part_of_the_file_does(symbol: str, version: str, plus: int, address: int) -> None:
    assert find(WHOLE, symbol, version, plus) == CODE_OFFSET + address


@pytest.mark.parametrize(
    ("symbol", "version", "plus", "says"),
    [
        ("wrok", "", 0, "no function wrok"),
        ("wor", "", 0, "use work"),
        ("ork", "", 0, "no function ork"),
        ("work", "LIB_2.0", 0, "use work@LIB_1.0"),
        ("work", "", 0x20, "has 32 bytes, and none at 32"),
        ("twice", "", 0, "2 functions called twice"),
        ("chosen", "", 0, "an ifunc"),
        ("table", "", 0, "no function table"),
        ("only_named", "", 0, "no function only_named"),
        ("elsewhere", "", 0, "no part that holds code"),
        ("x" * 600, "", 0, "no function"),
    ],
)
def test_what_is_no_one_function_is_told(symbol: str, version: str, plus: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find(WHOLE, symbol, version, plus)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF",
        b"#!/bin/sh\n" * 100,
        WHOLE[:4] + b"\1" + WHOLE[5:],
        Elf(machine=183).build(),
        Elf(kind=1).build(),
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:60] + b"\xff\xff" + WHOLE[62:],
    ],
    ids=["empty", "short", "script", "32 bits", "another machine", "object", "cut off", "many sections"],
)
def test_what_is_no_program_for_this_machine_is_told(data: bytes) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        find(data, "work")


def test_a_file_that_names_the_same_part_again_and_again_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf_symbols, "MAX_READ_BYTES", 2 * len(WHOLE))
    assert find(WHOLE, "work")
    many = bytearray(WHOLE)
    sections_at, count = struct.unpack_from("<Q", many, 40)[0], 1000
    symbols = bytes(many[sections_at + 64 : sections_at + 128])
    many += symbols * count
    struct.pack_into("<H", many, 60, 7 + count)
    with pytest.raises(ConfigError, match="its symbols take more than"):
        find(bytes(many), "work")


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were compared with one that is not there."""
    compare, names = difflib.get_close_matches, list[str]()

    def seen(symbol: str, near: Sequence[str], most: int) -> list[str]:
        names.extend(near)
        return compare(symbol, near, most)

    monkeypatch.setattr(difflib, "get_close_matches", seen)
    return names


def test_a_file_full_of_near_names_has_few_compared(compared: list[str]) -> None:
    many = [(f"work{number}", FUNC, CODE_AT + 0x10, 8) for number in range(300)]
    others = [(f"wore{number}", FUNC, CODE_AT + 0x10, 8, 1) for number in range(300)]
    with pytest.raises(ConfigError, match="use work"):
        find(Elf(symbols=many, dynamic=others, versions={1: "lib"}).build(), "work")
    assert len(compared) == 200


def test_names_of_quite_another_length_are_not_compared(compared: list[str]) -> None:
    names = ["work" + "x" * length for length in range(100)]
    with pytest.raises(ConfigError, match="use workx"):
        find(Elf(symbols=[(name, FUNC, CODE_AT + 0x10, 8) for name in names[1:]], versions={1: "lib"}).build(), "work")
    assert sorted(compared) == names[1:5]


@pytest.mark.parametrize(("length", "expected"), [(64, 1), (65, 0)])
def test_no_name_is_near_a_very_long_one(compared: list[str], length: int, expected: int) -> None:
    with pytest.raises(ConfigError, match="no function"):
        find(Elf(symbols=[("x" * 63, FUNC, CODE_AT + 0x10, 8)], versions={1: "lib"}).build(), "x" * length)
    assert len(compared) == expected


@given(st.data())
def test_a_damaged_file_gives_a_place_or_an_error(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    places = st.integers(0, 63) | st.integers(64, 119) | st.integers(CODE_OFFSET + CODE_BYTES, len(WHOLE) - 8)
    for at in data.draw(st.lists(places, min_size=1, max_size=4)):
        value = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8]))
        damaged[at : at + len(value)] = value
    cut = data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))
    with contextlib.suppress(ConfigError):
        assert find(bytes(damaged[:cut]), "copy", data.draw(st.sampled_from(["", "LIB_1.0"]))) >= 0
