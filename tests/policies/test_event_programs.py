"""Event programs as their texts say: where they run, and what rows come of what bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import GuestSyntaxError
from runvisor.policies.event_programs import parse_program
from runvisor.policies.observations import ObservedTable

HEAD = "// raw_tracepoint: sys_enter\n"
VALUE = "struct value { u64 times; s32 sum; u64 max_ns; u16 bytes; };\n"
KEY = "struct key { u8 name[4]; u64 code; s16 low; };\n"
KEY_OF = "int key_of(struct event *e, struct key *k) { return 1; }\n"
ON_EVENT = "void on_event(struct event *e, struct value *v) { }\n"
PROGRAM = HEAD + KEY + VALUE + KEY_OF + ON_EVENT


def test_a_table_has_a_column_for_each_field() -> None:
    columns = [(column.name, column.kind) for column in parse_program(PROGRAM).columns]
    keys = [("name", "text"), ("code", "id"), ("low", "id")]
    assert columns == [*keys, ("times", "count"), ("sum", "count"), ("max_s", "seconds"), ("bytes", "bytes")]


def test_what_cores_counted_is_summed_and_of_the_largest_the_largest_is_taken() -> None:
    program = parse_program(PROGRAM)
    key = struct.pack("<4s4xQh6x", b"ab", 2**64 - 1, -3)
    cores = [struct.pack("<Qi4xQH6x", *core) for core in ((1, -5, 7_000_000_000, 9), (2, 3, 4, 10))]
    assert program.rows([(key, cores)]) == [("ab", -1, -3, 3, -2, 7.0, 19)]


def test_rows_come_with_the_largest_first_value_first() -> None:
    program = parse_program(HEAD + "struct key { u32 n; };\nstruct value { u64 times; };\n" + KEY_OF + ON_EVENT)
    entries = [(struct.pack("<I", key), [struct.pack("<Q", times)]) for key, times in ((1, 5), (2, 9), (3, 5))]
    assert program.rows(entries) == [(2, 9), (1, 5), (3, 5)]


@given(st.lists(st.tuples(st.binary(min_size=24, max_size=24), st.lists(st.binary(min_size=32, max_size=32)))))
def test_any_entries_make_rows_that_travel(entries: list[tuple[bytes, list[bytes]]]) -> None:
    program = parse_program(PROGRAM)
    table = ObservedTable(program.title, program.columns, tuple(program.rows(entries)), 1, 1.0)
    assert ObservedTable.from_wire(table.to_wire()) == table


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PROGRAM.removeprefix(HEAD), "does not say where it runs"),
        (PROGRAM.replace("raw_tracepoint", "kprobe"), "does not say where it runs"),
        (PROGRAM.replace("sys_enter", "../../etc"), "no name of a tracepoint"),
        (PROGRAM.replace("sys_enter", "x" * 200), "no name of a tracepoint"),
        (PROGRAM.replace(VALUE, ""), "does not declare struct value"),
        (PROGRAM.replace(KEY, ""), "not declared"),
        (PROGRAM.replace(KEY_OF, ""), "nothing fills it"),
        (PROGRAM.replace(ON_EVENT, ""), "no function on_event"),
        (PROGRAM.replace("s16 low", "s16 low[2]"), "not part of a key"),
        (PROGRAM.replace("u8 name[4]", "u8 name[97]"), "larger than"),
        (PROGRAM.replace("s32 sum", "s32 sum[2]"), "not part of a value"),
        (PROGRAM.replace("u64 times;", "".join(f"u64 n{n};" for n in range(9))), "more than 8"),
        (PROGRAM.replace("s32 sum", "s32 code"), "two columns"),
        (PROGRAM.replace("{ }", '{ asm volatile(""); }'), "asm"),
        (HEAD + '#include "/etc/shadow"\n' + PROGRAM.removeprefix(HEAD), "#include"),
    ],
)
def test_what_the_language_does_not_have_is_told(text: str, says: str) -> None:
    with pytest.raises(GuestSyntaxError, match=says):
        parse_program(text)
