"""The record language: what a program may hold, how its structs lie in memory, what it answers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import GuestSyntaxError, InvalidTask
from runvisor.policies.record_inputs import RecordInputs
from runvisor.policies.records import LAYOUT_FILE, RecordProgram, parse_program
from runvisor.policies.struct_values import StructValues
from runvisor.policies.structs import TYPES, Struct, lay_out

ENTRY = "int on_record(struct record *r, struct state *s) { return 1; }\n"
EVENT = np.dtype([("id", "<u4"), ("kind", "<u4"), ("value", "<u8")])

integer_types = st.sampled_from(sorted(set(TYPES.values())))
counts = st.none() | st.integers(1, 7)


@st.composite
def structs(draw: st.DrawFn) -> Struct:
    fields = draw(st.lists(st.tuples(integer_types, counts), min_size=1, max_size=9))
    return lay_out("state", [(kind, f"f{index}", count) for index, (kind, count) in enumerate(fields)])


@st.composite
def dtypes(draw: st.DrawFn) -> np.dtype[Any]:
    kinds = ["?", "u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8", "<M8[ns]", "<m8[s]", "S3"]
    fields = draw(st.lists(st.tuples(st.sampled_from(kinds), counts), min_size=1, max_size=8))
    described: list[Any] = [
        (f"f{index}", kind) if count is None or kind == "S3" else (f"f{index}", kind, (count,))
        for index, (kind, count) in enumerate(fields)
    ]
    return np.dtype(described, align=draw(st.booleans()))


def values_for(layout: Struct) -> st.SearchStrategy[dict[str, Any]]:
    def one(kind: str) -> st.SearchStrategy[int]:
        bits = int(kind[1:])
        return st.integers(0, 2**bits - 1) if kind[0] == "u" else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    return st.fixed_dictionaries(
        {
            m.name: one(m.type) if m.count is None else st.lists(one(m.type), min_size=m.count, max_size=m.count)
            for m in layout.members
        }
    )


def refusal(source: str, dtype: Any = EVENT) -> GuestSyntaxError:
    with pytest.raises(GuestSyntaxError) as caught:
        parse_program(source, np.dtype(dtype))
    return caught.value


# Layouts


@given(structs())
def test_a_layout_is_that_of_the_c_compiler(layout: Struct) -> None:
    import ctypes

    names = {f"{s}{w}": getattr(ctypes, f"c_{'u' if s == 'u' else ''}int{w}") for s in "us" for w in (8, 16, 32, 64)}
    fields = [(m.name, names[m.type] * m.count if m.count else names[m.type]) for m in layout.members]
    same = type("same", (ctypes.Structure,), {"_fields_": fields})
    assert [(getattr(same, m.name).offset, getattr(same, m.name).size) for m in layout.members] == [
        (m.offset, m.size) for m in layout.members
    ]
    assert (ctypes.sizeof(same), ctypes.alignment(same)) == (layout.size, layout.alignment)


@given(st.data())
def test_a_state_decodes_to_what_was_encoded(data: st.DataObject) -> None:
    layout = data.draw(structs())
    values = data.draw(values_for(layout))
    reader = StructValues(layout)
    encoded = reader.encode(values, "state")
    assert len(encoded) == layout.size
    assert reader.decode(encoded) == values


@given(structs())
def test_a_declaration_reads_back_as_the_same_struct(layout: Struct) -> None:
    program = parse_program(layout.declaration() + ENTRY, EVENT)
    assert program.state == layout


@given(dtypes(), st.integers(0, 40), st.randoms(use_true_random=False))
def test_records_are_copied_in_c_layout_whatever_the_dtype(dtype: np.dtype[Any], count: int, random: Any) -> None:
    records = np.frombuffer(random.randbytes(count * dtype.itemsize), dtype)
    program = parse_program(ENTRY, dtype)
    target = bytearray(b"\xaa" * (count * program.record.size + 1))
    program.copy_records(records, memoryview(target))
    assert target[-1] == 0xAA
    for index in range(count):
        start = index * program.record.size
        for member in program.record.members:
            at = start + member.offset
            field = np.ascontiguousarray(records[index : index + 1][member.name])
            assert target[at : at + member.size] == field.tobytes().ljust(member.size, b"\0")


def test_every_second_record_of_an_array_is_copied_whole() -> None:
    records = np.zeros(20, EVENT)
    records["id"] = np.arange(20)
    target = bytearray(10 * 16)
    parse_program(ENTRY, EVENT).copy_records(records[::2], memoryview(target))
    assert target == records[::2].tobytes()


# struct record against the dtype


def test_a_record_is_generated_from_the_dtype() -> None:
    dtype = np.dtype([("flag", "?"), ("price", "<f8"), ("at", "<M8[ns]"), ("tag", "S3"), ("xs", "<i2", (4,))])
    record = parse_program(ENTRY, dtype).record
    assert [(m.type, m.name, m.count) for m in record.members] == [
        ("u8", "flag", None),
        ("u64", "price", None),
        ("s64", "at", None),
        ("u8", "tag", 3),
        ("s16", "xs", 4),
    ]


def test_a_plain_array_is_a_record_of_one_field_called_value() -> None:
    assert [(m.type, m.name) for m in parse_program(ENTRY, np.dtype("<i4")).record.members] == [("s32", "value")]


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        (
            "u32 id, kind; s64 value;",
            "field 'value' differs: 's64 value' at byte 8 of struct record, <u8 'value' at byte 8",
        ),
        (
            "u32 id, sort; u64 value;",
            "field 'sort' differs: 'u32 sort' at byte 4 of struct record, <u4 'kind'",
        ),
        ("u32 kind, id; u64 value;", "field 'kind' differs"),
        ("u32 id[2]; u64 value;", "field 'id' differs: 'u32 id[2]' at byte 0 of struct record, <u4 'id' at byte 0"),
        ("u32 id, kind;", "has 2 fields, the records' dtype has 3: value is in one of them only"),
        ("u32 id, kind; u64 value; u8 more;", "has 4 fields, the records' dtype has 3: more is in one of them only"),
    ],
)
def test_a_written_record_that_is_not_the_dtypes_is_refused(declared: str, says: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        parse_program(f"struct record {{ {declared} }};\n{ENTRY}", EVENT)
    assert says in caught.value.what
    assert caught.value.where == "inputs['records']"


def test_a_written_record_of_another_padding_is_refused() -> None:
    packed = np.dtype([("flag", "u1"), ("value", "<u4")])
    source = f"struct record {{ u8 flag; u32 value; }};\n{ENTRY}"
    with pytest.raises(InvalidTask, match="'u32 value' at byte 4 of struct record, <u4 'value' at byte 1"):
        parse_program(source, packed)
    assert parse_program(source, np.dtype(packed.descr, align=True)).record.size == 8


@pytest.mark.parametrize(
    ("dtype", "says"),
    [
        ([("x", ">u4")], "big-endian"),
        ([("x", "c16")], "cannot be a C field"),
        ([("x", "U4")], "cannot be a C field"),
        ([("x", "O")], "cannot be a C field"),
        ([("int", "<u4")], "name of a C field"),
        ([("u8", "<u4")], "name of a C field"),
        ([("a b", "<u4")], "name of a C field"),
        ([("x", "<f16")], "cannot be a C field"),
        ([("a", [("b", [("c", "u1")])]), ("a_b", [("c", "u2")])], "both be struct record_a_b"),
        ([("x", [("y", ">u4")])], "big-endian"),
        ([("x", [("int", "u4")])], "name of a C field"),
    ],
)
def test_a_dtype_that_c_does_not_have_is_refused(dtype: Any, says: str) -> None:
    with pytest.raises(InvalidTask, match=says):
        parse_program(ENTRY, np.dtype(dtype))


def test_a_written_record_may_hold_structs_and_is_compared_to_the_last_field() -> None:
    inner = [("x", "u1"), ("y", "<u4")]
    source = "struct place { u8 x; u32 y; };\nstruct record { u16 id; struct place at[2]; };\n" + ENTRY
    dtype = np.dtype([("id", "<u2"), ("at", np.dtype(inner, align=True), (2,))], align=True)
    assert parse_program(source, dtype).is_direct
    with pytest.raises(
        InvalidTask, match=r"field 'at\.y' differs: 's32 y' at byte 4 of struct place, <u4 'y'"
    ) as caught:
        parse_program(source.replace("u32", "s32"), dtype)
    assert caught.value.details["numpy"] == {"name": "y", "dtype": "<u4", "offset": 4, "size": 4}
    with pytest.raises(InvalidTask, match="field 'at' lies elsewhere"):
        parse_program(source, np.dtype([("id", "<u2"), ("at", inner, (2,))]))


@pytest.mark.parametrize(
    ("declared", "where", "says"),
    [
        ("struct state { struct late x; }; struct late { u8 a; };", "1:23", "struct late is not declared before"),
        ("struct state { struct state x; };", "1:23", "struct state is not declared before"),
        ("struct bad { int a; }; struct state { struct bad x; };", "1:14", "'int' is not a field type of struct bad"),
        ("struct self { struct self x; }; struct state { struct self x; };", "1:22", "more than 8 structs"),
        ("struct a { u8 x; }; struct state { struct a; };", "1:44", "';' is not a field name"),
        ("struct state { struct { u8 x; } y; };", "1:23", "struct { is not declared"),
    ],
)
def test_a_struct_in_a_struct_is_one_that_was_declared_before(declared: str, where: str, says: str) -> None:
    error = refusal(f"{declared}\n{ENTRY}")
    assert (says in error.what, error.where) == (True, where)


def test_structs_that_nobody_stores_may_hold_what_they_like() -> None:
    assert parse_program(f"struct free {{ int *p; float *q; }};\n{ENTRY}".replace("float", "int"), EVENT).state is None


# The text


@pytest.mark.parametrize(
    ("source", "where", "says"),
    [
        ("int other(void) { return 0; }", "1:1", "no function on_record"),
        ("struct state { u64 a };\n", "1:22", "'}' where ',' or ';'"),
        ("struct state { int a; };", "1:16", "'int' is not a field type"),
        ("struct state { u64 a:3; };", "1:21", "':' where"),
        ("struct state {\n  u64 a;\n  float b;\n};", "3:3", "'float' is not a field type"),
        ("struct state { u64 *a; };", "1:20", "'*' is not a field name"),
        ("struct state { u64 a[0]; };", "1:22", "not an array size"),
        ("struct state { u64 a[n]; };", "1:22", "not an array size"),
        ("struct state { u64 a[2][2]; };", "1:24", "one dimension"),
        ("struct state { u64 a, a; };", "1:23", "two fields 'a'"),
        ("struct state { };", "1:16", "has no fields"),
        ("struct state { u64 a; } x;", "1:25", "';' right behind struct state"),
        ("struct state { u64 a; };\nstruct state { u64 a; };", "2:1", "declared twice"),
        ("/* no end", "1:1", "a comment does not end"),
        ('char *x = "no end;', "1:11", "a literal does not end"),
        ("u64 total;", "1:1", "a variable outside every function"),
        ("const u32 table[2] = {1, 2};", "1:1", "a variable outside every function"),
        ("u32 f(void) {\n static u32 n; return n++; }", "2:2", "no static data"),
        ("double f(void);", "1:1", "no floating point"),
        ("int f(void) { return 1.5; }", "1:22", "no floating point"),
        ('#include "/etc/hostname"', "1:1", "#include is not part"),
        ("#in\\\nclude <x.h>", "1:1", "#include is not part"),
        ("%:include <x.h>", "1:1", "#include is not part"),
        ("#pragma pack(1)", "1:1", "#pragma is not part"),
        ("#line 7", "1:1", "#line is not part"),
        ("#define X asm", "1:1", "asm is not part"),
        ('void f(void) { __asm__("exit"); }', "1:16", "'__asm__' is not part"),
        ("int x\0;", "1:6", "is not part"),
        ("// x \r asm(1);", "1:6", "is not part"),
        ("int x; ??/\n", "1:8", "is not part"),
        ("[[gnu::noinline]] int f(void);", "1:1", "'[['"),
        ("<:<:gnu::noinline:>:> int f(void);", "1:1", "'[['"),
        ("#define GLUE(a, b) a##b", "1:1", "## is not part"),
        ("#define GLUE(a, b) a%:%:b", "1:1", "## is not part"),
        ("void f(void) { as\\\nm(1); }", "1:16", "'asm'"),
        ("void f(void) { as\\ \t\nm(1); }", "1:16", "'asm'"),
        ("/\\\n/ /*\nvoid f(void) { asm(1); } /* */", "3:16", "'asm'"),
        ("int x(int a) { return '\\''; asm(1); }", "1:29", "'asm'"),
        ("\n\\\n#include <x>", "3:1", "#include"),
    ],
)
def test_what_the_language_does_not_have_is_refused_with_its_place(source: str, where: str, says: str) -> None:
    error = refusal(f"{source}\n{'' if 'other' in source else ENTRY}")
    assert says in error.what
    assert error.where == where


@pytest.mark.parametrize(
    "source",
    [
        "/* struct state { int x; }; */ // struct state { int x; };",
        '#define text "struct state { #include"',
        "typedef u32 number;",
        "struct pair { u32 a; u64 b; };",
        "union both { u32 a; u8 b[4]; };",
        "enum { FIRST, SECOND = 3 };",
        "static inline u32 twice(u32 x) { return x * 2; }",
        "#define TWICE(x) ((x) * 2)\n#ifdef TWICE\nu32 f(u32);\n#endif",
        "u32 f(u32 x) { u32 t[2] = {1, 2};\n#pragma unroll\nfor (int i = 0; i < 2; i++) x += t[i]; return x; }",
    ],
)
def test_ordinary_c_is_accepted(source: str) -> None:
    assert parse_program(f"{source}\n{ENTRY}", EVENT).state is None


def test_a_defined_number_may_size_an_array() -> None:
    program = parse_program(f"#define KEYS 0x10 /* of them */\nstruct state {{ u32 a[KEYS], b; }};\n{ENTRY}", EVENT)
    assert program.state is not None
    assert [(m.name, m.count) for m in program.state.members] == [("a", 16), ("b", None)]


def test_a_text_that_breaks_off_is_refused_at_its_end() -> None:
    assert refusal("struct state { u64 a;").where == "1:22"
    assert refusal("struct state {\n u64").where == "2:5"


@given(st.text(max_size=200) | st.text(alphabet='{}();,[]#/*\\"\n structerecordu32 on_', max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(GuestSyntaxError):
        parse_program(text, EVENT)


def test_a_long_hostile_text_is_read_in_linear_time() -> None:
    for piece in ("/*x*/ ", "\\\n", "#define A A\n", "{", "struct state", '"a" ', "//" + "\\\n" * 3 + "\n"):
        with pytest.raises((GuestSyntaxError, InvalidTask)):
            parse_program(piece * (200_000 // len(piece)) + "/*", EVENT)


# State and inputs


STATE = "struct state { u64 total; s16 low; u32 seen[3]; };\n" + ENTRY


def test_first_values_of_a_state_are_set_and_the_others_are_zero() -> None:
    program = parse_program(STATE, EVENT)
    first = program.initial_state({"low": -5, "seen": np.array([1, 2, 3])})
    assert program.value(0, first) == {"selected": 0, "state": {"total": 0, "low": -5, "seen": [1, 2, 3]}}


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"other": 1}, "inputs['state']['other']"),
        ({"low": 40000}, "inputs['state']['low']"),
        ({"total": -1}, "inputs['state']['total']"),
        ({"total": 1.5}, "inputs['state']['total']"),
        ({"total": [1]}, "inputs['state']['total']"),
        ({"seen": 1}, "inputs['state']['seen']"),
        ({"seen": [1, 2]}, "inputs['state']['seen']"),
        ({"seen": [1, 2, "x"]}, "inputs['state']['seen'][2]"),
    ],
)
def test_first_values_that_do_not_fit_are_refused(fields: Any, where: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        parse_program(STATE, EVENT).initial_state(fields)
    assert caught.value.where == where


def test_a_program_without_a_state_takes_none() -> None:
    program = parse_program(ENTRY, EVENT)
    assert (program.initial_state({}), program.value(2, b"")) == (b"", {"selected": 2, "state": {}})
    with pytest.raises(InvalidTask):
        program.initial_state({"total": 1})


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        [1],
        {},
        {"records": [1, 2]},
        {"records": np.zeros((2, 2))},
        {"records": np.zeros(2), "state": [1]},
        {"records": np.zeros(2), "more": 1},
    ],
)
def test_inputs_of_another_shape_are_refused(inputs: Any) -> None:
    with pytest.raises(InvalidTask):
        RecordInputs.of(inputs, ENTRY)


# The C text


def compile_with_zig(text: str, folder: Path) -> str:
    source = folder / "unit.c"
    source.write_text(text)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            "-target",
            "wasm32-freestanding",
            "-c",
            str(source),
            "-o",
            str(folder / "unit.o"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "ZIG_LOCAL_CACHE_DIR": str(folder), "ZIG_GLOBAL_CACHE_DIR": str(folder)},
    )
    return done.stderr


has_zig = pytest.mark.skipif(
    shutil.which("zig") is None and importlib.util.find_spec("ziglang") is None,
    reason="no C compiler of wasm here (pip install ziglang)",
)


@has_zig
def test_the_translation_unit_compiles_and_messages_keep_the_authors_lines(tmp_path: Path) -> None:
    good = parse_program(STATE.replace("return 1", "s->total += r->value; return 1"), EVENT)
    assert "error" not in compile_with_zig(good.translation_unit(""), tmp_path)
    bad = parse_program("\n\nint on_record(struct record *r, struct state *s) { return r->nothing; }", EVENT)
    assert "program.c:3:62: error" in compile_with_zig(bad.translation_unit(""), tmp_path)


@has_zig
def test_a_layout_that_macros_changed_does_not_compile(tmp_path: Path) -> None:
    program = parse_program("#define u16 u64\nstruct state { u16 a; u8 b; };\n#undef u16\n" + ENTRY, EVENT)
    assert f"{LAYOUT_FILE}:" in compile_with_zig(program.translation_unit(""), tmp_path)


def test_a_program_is_a_plain_value() -> None:
    assert parse_program(STATE, EVENT) == parse_program(STATE, EVENT)
    assert isinstance(parse_program(STATE, EVENT), RecordProgram)
