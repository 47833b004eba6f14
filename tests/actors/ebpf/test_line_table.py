"""From instructions to the author's lines, through a table that a jailed process hands over."""

from __future__ import annotations

import contextlib
import re
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.ebpf.line_table import LineTable, read_lines

CODE = bytes(range(16))


def made(*, file: bytes = b"/tmp/program.c", code: bytes = CODE) -> bytes:
    """Return an object file as LLVM lays it out: instructions, texts and a line table of two entries."""
    texts = b"\0.text.f\0" + file + b"\0"
    btf = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, len(texts)) + texts
    records = struct.pack("<IIII", 0, 10, 0, 3 << 10 | 7) + struct.pack("<IIII", 8, 10, 0, 4 << 10 | 1)
    table = struct.pack("<I", 16) + struct.pack("<II", 1, 2) + records
    extra = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, len(table)) + table
    contents = {".text.f": code, ".BTF": btf, ".BTF.ext": extra}
    names = b"\0" + b"\0".join(map(str.encode, (*contents, ".strtab"))) + b"\0"
    body, headers = b"", []
    for name, content in (*contents.items(), (".strtab", names)):
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        headers.append(struct.pack("<IIQQQQIIQQ", at, 1, 0, 0, 64 + len(body), len(content), 0, 0, 0, 0))
        body += content
    start = bytes(40) + struct.pack("<Q", 64 + len(body)) + bytes(10) + struct.pack("<HHH", 64, len(headers), 3)
    return start + body + b"".join(headers)


def test_each_instruction_has_its_line_and_column() -> None:
    assert read_lines(made(), "f", "program.c") == (CODE, [(0, 3, 7), (1, 4, 1)])


def test_lines_of_another_file_are_none_of_the_authors() -> None:
    assert read_lines(made(file=b"/tmp/harness.c"), "f", "program.c")[1] == [(0, 0, 0), (1, 0, 0)]


def test_an_object_without_the_program_is_an_error() -> None:
    with pytest.raises(ValueError, match="without the program"):
        read_lines(made(), "g", "program.c")


STORE, LOAD, ADD = (struct.pack("<BBhi", opcode, 0x21, offset, 1) for opcode, offset in ((0x63, 4), (0x61, 8), (7, 0)))
OTHER_STORE = struct.pack("<BBhi", 0x63, 0x43, 4, 1)
LINES = [[0, 5, 1], [1, 6, 1], [2, 7, 1], [3, 8, 1]]


def test_an_instruction_in_other_registers_and_another_order_is_found_again() -> None:
    table = LineTable(LINES, shown=STORE + LOAD + OTHER_STORE + ADD, loaded=LOAD + OTHER_STORE + ADD + STORE)
    assert [table.place(index) for index in range(4)] == ["6:1", "5:1", "8:1", "7:1"]


def test_where_there_is_doubt_no_line_is_named() -> None:
    table = LineTable(LINES, shown=STORE + LOAD + ADD + ADD, loaded=STORE + STORE + LOAD + ADD)
    assert [table.place(index) for index in range(5)] == [None, None, "6:1", None, None]


@given(st.data())
def test_a_damaged_object_ends_in_an_error_and_not_in_a_loop(data: st.DataObject) -> None:
    elf = bytearray(made())
    for _ in range(data.draw(st.integers(1, 4))):
        elf[data.draw(st.integers(0, len(elf) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError, struct.error):
        read_lines(bytes(elf), "f", "program.c")


@given(st.lists(st.lists(st.integers(-3, 50) | st.none() | st.text(max_size=2), max_size=4) | st.integers()))
def test_a_table_from_the_jail_is_only_small_numbers(entries: list[Any]) -> None:
    table = LineTable(entries)
    for instruction in range(50):
        for place in (table.place(instruction), table.nearest(instruction)):
            assert place is None or re.fullmatch(r"\d+:\d+", place)


def test_what_lies_between_the_authors_lines_has_a_nearest_one() -> None:
    table = LineTable([[2, 5, 1], [4, 0, 0], [9, 6, 3]])
    assert [table.place(5), table.nearest(5), table.nearest(8)] == [None, "5:1", "6:3"]
    assert LineTable.unknown().nearest(1) is None


@pytest.mark.parametrize("entry", [[1, 2], [1, 2, 3, 4], [1, -2, 3], [1, 2, 1 << 40], ["1", 2, 3], None, "abc"])
def test_what_makes_no_sense_is_left_out(entry: object) -> None:
    assert LineTable([entry]).place(9) is None
