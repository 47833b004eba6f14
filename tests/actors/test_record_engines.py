"""Record programs answer the same in the kernel, through wasm and in numpy, whatever is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runvisor.actors import registry
from runvisor.actors.runtime import PoolSize, Runtime, Watch
from runvisor.actors.wasm.compilers import ziglang
from runvisor.policies.dtypes import dtype_of, record_of
from runvisor.policies.errors import GuestSyntaxError, InvalidTask, MemoryLimitExceeded, OutputLimitExceeded
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.record_inputs import PARTS
from runvisor.policies.result import Result
from runvisor.policies.structs import Struct, lay_out
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

pytestmark = pytest.mark.root

KINDS = ["?", "u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8", "<M8[ns]", "<m8[s]", "S3"]
TYPES = ["u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64"]
GROUPS = 4


PLAIN = "int on_record(struct record *r, struct state *s) { return r->value; }"
WIDE = """struct output { u64 words[100]; };
int on_record(struct record *r, struct state *s, struct output *o) { return r->value < 50; }"""


class Engines(NamedTuple):
    """The engines of record programs that this machine has."""

    runtimes: list[tuple[str, Runtime, Trust]]

    def ask(self, source: str, inputs: dict[str, Any], **permissions: Any) -> Iterator[tuple[str, Result]]:
        permissions = {"output_bytes": 64 * MiB, **permissions}
        for name, runtime, trust in self.runtimes:
            grant = Grant("tester", trust, Permissions(**permissions))
            yield name, runtime.execute(Task(source, "c-record", inputs), "record", grant, Watch())

    def one(self, index: int, source: str, inputs: dict[str, Any]) -> Result:
        return next(iter(Engines(self.runtimes[index : index + 1]).ask(source, inputs)))[1]


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    started: dict[str, Runtime] = {}
    try:
        for name in ("ebpf", "wasm"):
            if registry.probe(name).available and (name == "ebpf" or ziglang.find() is not None):
                started[name] = registry.create(name, PoolSize(minimum=1, maximum=2))
                started[name].start()
        found = [("wasm", Trust.UNTRUSTED), ("ebpf", Trust.UNTRUSTED), ("ebpf", Trust.VERIFIED)]
        runtimes = [(f"{name} {trust.value}", started[name], trust) for name, trust in found if name in started]
        if not runtimes:
            pytest.skip(f"{registry.probe('ebpf').detail}; {ziglang.REMEDY}")
        yield Engines(runtimes)
    finally:
        for runtime in started.values():
            runtime.close()


@st.composite
def dtypes(draw: st.DrawFn, depth: int = 0) -> np.dtype[Any]:
    """Structured dtypes: nested ones, array fields of several dimensions, with and without padding."""
    fields: list[Any] = []
    for index in range(draw(st.integers(1, 5))):
        kind: Any = draw(st.sampled_from(KINDS))
        if depth == 0 and draw(st.integers(0, 5)) == 0:
            kind = draw(dtypes(depth=1))
        shape = draw(st.sampled_from([None, None, (2,), (3,), (2, 2)]))
        fields.append((f"f{index}", kind) if shape is None or kind == "S3" else (f"f{index}", kind, shape))
    return np.dtype(fields, align=draw(st.booleans()))


def leaves(struct: Struct, path: str = "r->") -> Iterator[tuple[str, str]]:
    """Yield the C expression and the type of every integer in a struct."""
    for member in struct.members:
        for index in range(member.count or 1):
            name = f"{path}{member.name}" + ("" if member.count is None else f"[{index}]")
            if member.of is not None:
                yield from leaves(member.of, f"{name}.")
            else:
                yield name, member.type


def columns(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Yield every integer of the records as a column of u64, in the order of `leaves`."""
    if array.dtype.names is not None:
        for name in array.dtype.names:
            field = array[name]
            for column in [field] if field.ndim == 1 else list(field.reshape(len(field), math.prod(field.shape[1:])).T):
                yield from columns(column)
        return
    if array.dtype.kind == "S":
        data = np.frombuffer(np.ascontiguousarray(array).tobytes(), "u1").reshape(len(array), array.dtype.itemsize)
        yield from (column.astype("<u8") for column in data.T)
        return
    sign = "i" if array.dtype.kind in "imM" else "u"
    bits = np.ascontiguousarray(array).view(f"<{sign}{array.dtype.itemsize}")
    yield bits.astype("<i8").view("<u8") if sign == "i" else bits.astype("<u8")


class Program(NamedTuple):
    """A program and what it should answer."""

    source: str
    output: Struct
    chosen: int
    mask: int
    copied: list[int]


@st.composite
def programs(draw: st.DrawFn, dtype: np.dtype[Any]) -> Program:
    """Programs that select by one integer, copy some into an output, and count groups of another."""
    integers = list(leaves(record_of(dtype)))
    chosen = draw(st.integers(0, len(integers) - 1))
    mask = draw(st.sampled_from([0, 1, 2, 3, 0x80]))
    copied = draw(st.lists(st.integers(0, len(integers) - 1), min_size=1, max_size=6))
    kinds = [draw(st.sampled_from(TYPES)) for _ in copied]
    output = lay_out("output", [(kind, f"g{n}", None) for n, kind in enumerate(kinds)])
    copies = " ".join(f"o->g{n} = {integers[at][0]};" for n, at in enumerate(copied))
    source = f"""{output.declaration()}
    struct group {{ u64 sum; u16 count; }};
    struct state {{ struct group groups[{GROUPS}]; struct group all; u64 sums[{len(copied)}]; }};
    int on_record(struct record *r, struct state *s, struct output *o)
    {{
        u64 chosen = {integers[chosen][0]};
        {copies}
        {" ".join(f"s->sums[{n}] += {integers[at][0]};" for n, at in enumerate(copied))}
        s->groups[chosen & {GROUPS - 1}].sum += chosen;
        s->groups[chosen & {GROUPS - 1}].count++;
        s->all.sum ^= chosen;
        s->all.count++;
        return (chosen & {mask}) != 0;
    }}"""
    return Program(source, output, chosen, mask, copied)


def expected(program: Program, records: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return what numpy says to a program."""
    dtype = records.dtype
    integers = list(columns(records))
    chosen = integers[program.chosen]
    mask = (chosen & np.uint64(program.mask)) != 0
    outputs = np.zeros(int(mask.sum()), dtype_of(program.output))
    for n, at in enumerate(program.copied):
        outputs[f"g{n}"] = integers[at][mask].astype(outputs.dtype[f"g{n}"])
    groups = np.zeros(GROUPS, dtype_of(lay_out("group", [("u64", "sum", None), ("u16", "count", None)])))
    for key in range(GROUPS):
        inside = chosen[chosen & np.uint64(GROUPS - 1) == key]
        groups[key] = (inside.sum(dtype="<u8"), len(inside) % (1 << 16))
    return {
        "selected": int(mask.sum()),
        "state": {
            "groups": groups,
            "all": {"sum": int(np.bitwise_xor.reduce(chosen)), "count": len(records) % (1 << 16)},
            "sums": [int(integers[at].sum(dtype="<u8")) for at in program.copied],
        },
        "indices": np.flatnonzero(mask),
        "mask": mask,
        "records": records.view(f"V{dtype.itemsize}")[mask].view(dtype),  # with the bytes between the fields
        "outputs": outputs,
    }


def assert_same(actual: Any, wanted: Any, where: str) -> None:
    """Compare values with their types, dtypes and bytes."""
    assert type(actual) is type(wanted), where
    if isinstance(wanted, np.ndarray):
        assert actual.dtype == wanted.dtype, where
        assert actual.tobytes() == wanted.tobytes(), where
    elif isinstance(wanted, dict):
        assert list(actual) == list(wanted), where
        for key in wanted:
            assert_same(actual[key], wanted[key], f"{where}[{key!r}]")
    else:
        assert actual == wanted, where


@settings(
    max_examples=8,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking compiles for minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_every_kind_of_answer_equals_numpy_on_every_engine(engines: Engines, data: st.DataObject) -> None:
    dtype = data.draw(dtypes())
    program = data.draw(programs(dtype))
    for count in (data.draw(st.integers(1, 3000)), 0):
        noise = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
        records = np.frombuffer(noise.bytes(count * dtype.itemsize), dtype)
        wanted = expected(program, records)
        for name, result in engines.ask(program.source, {"records": records, "return": list(PARTS)}):
            assert_same(result.unwrap(), wanted, name)


def test_each_part_comes_alone_and_nothing_comes_unasked(engines: Engines) -> None:
    records = np.arange(10, dtype="<u4")
    source = "struct output { u8 twice; }; int on_record(struct record *r, struct state *s, struct output *o)"
    source += "{ o->twice = r->value * 2; return r->value > 6; }"
    parts = {
        "indices": np.array([7, 8, 9]),
        "mask": records > 6,
        "records": records[7:],
        "outputs": np.array([(14,), (16,), (18,)], [("twice", "u1")]),
    }
    for part, array in parts.items():
        for name, result in engines.ask(source, {"records": records, "return": part}):
            assert_same(result.unwrap(), {"selected": 3, "state": {}, part: array}, name)
    for name, result in engines.ask(source, {"records": records}):
        assert_same(result.unwrap(), {"selected": 3, "state": {}}, name)


def test_records_may_be_bytes_of_a_dtype_or_of_the_programs_own_struct(engines: Engines) -> None:
    records = np.array([(1, 5), (2, 7)], np.dtype([("id", "u1"), ("value", "<u4")], align=True))
    source = "int on_record(struct record *r, struct state *s) { return r->value > 5; }"
    written = "struct record { u8 id; u32 value; };\n" + source
    for inputs, text in (
        ({"records": records.tobytes(), "dtype": records.dtype.descr}, source),
        ({"records": records.tobytes()}, written),
    ):
        for name, result in engines.ask(text, {**inputs, "return": "records"}):
            assert_same(result.unwrap()["records"]["id"].tolist(), [2], name)


def test_an_output_starts_from_zero_for_each_record_of_each_execution(engines: Engines) -> None:
    # It adds to what it finds; half of what it writes is then thrown away.
    source = """struct output { u64 seen; u8 tail[5]; };
    int on_record(struct record *r, struct state *s, struct output *o)
    {
        o->seen += o->seen + r->value + 1;
        o->tail[4] |= 0x55;
        ((u8 *)o)[15] = 0xAA; /* in the padding */
        return r->value & 1;
    }"""
    for count in (5000, 100, 70_000, 3, 5000):
        records = np.arange(count, dtype="<u8")
        for name, result in engines.ask(source, {"records": records, "return": "outputs"}):
            outputs = result.unwrap()["outputs"]
            assert (outputs["seen"] == np.arange(1, count, 2) + 1).all(), name
            assert (outputs["tail"] == [0, 0, 0, 0, 0x55]).all(), name
            assert outputs.view("u1").reshape(-1, 16)[:, 13:].sum() == 0, f"{name}: padding"


def test_what_one_execution_selects_is_not_selected_by_the_next(engines: Engines) -> None:
    for wanted in (1, 0):
        records = np.full(3000, wanted, "u1")
        for name, result in engines.ask(PLAIN, {"records": records, "return": "mask"}):
            assert (result.unwrap()["mask"] == bool(wanted)).all(), name


def test_outputs_wider_than_their_records_go_through_in_parts(engines: Engines) -> None:
    source = """struct output { u32 words[700]; };
    int on_record(struct record *r, struct state *s, struct output *o) { o->words[699] = r->value; return 1; }"""
    records = np.arange(20_000, dtype="<u2") % 251
    for name, result in engines.ask(source, {"records": records, "return": "outputs"}, memory_bytes=128 * MiB):
        words = result.unwrap()["outputs"]["words"]
        assert (words[:, 699] == records).all(), name
        assert words[:, :699].sum() == 0, name


@pytest.mark.parametrize(
    ("part", "fits", "exceeds"),
    [("mask", 8000, 900), ("indices", 2000, 350), ("records", 1000, 90), ("outputs", 41_000, 40_000)],
)
def test_what_is_returned_counts_against_the_output_limit(engines: Engines, part: str, fits: int, exceeds: int) -> None:
    inputs = {"records": np.arange(1000, dtype="<u2"), "return": part}
    for name, result in engines.ask(WIDE, inputs, output_bytes=fits):
        assert result.unwrap()["selected"] == 50, name
    for name, result in engines.ask(WIDE, inputs, output_bytes=exceeds):
        assert isinstance(result.error, OutputLimitExceeded), name
        assert result.value is None, name


def test_outputs_count_against_the_memory_limit_before_anything_starts(engines: Engines) -> None:
    inputs = {"records": np.arange(1000, dtype="<u2"), "return": "indices"}
    for name, result in engines.ask(WIDE, inputs, memory_bytes=1000 * (2 + 1 + 800)):
        assert result.ok, name
    for name, result in engines.ask(WIDE, inputs, memory_bytes=1000 * (2 + 1 + 800) - 1):
        assert isinstance(result.error, MemoryLimitExceeded), name
        assert result.usage.start_kind == "cold" or result.usage.wall_s == 0, name


@pytest.mark.parametrize(
    ("source", "inputs", "says"),
    [
        (WIDE, {"return": "everything"}, "cannot return 'everything'"),
        (PLAIN, {"return": "outputs"}, "no outputs"),
        (WIDE, {"dtype": "<u8"}, "the array is of dtype uint16"),
    ],
)
def test_what_no_program_can_return_is_refused_by_every_engine(
    engines: Engines, source: str, inputs: dict[str, Any], says: str
) -> None:
    for index in range(len(engines.runtimes)):
        with pytest.raises(InvalidTask, match=says):
            engines.one(index, source, {"records": np.arange(10, dtype="<u2"), **inputs})


@pytest.mark.parametrize(
    "source",
    [
        "int on_record(struct record *r, struct state *s, struct output *o) { return 1; }",
        "struct output { u64 a; }; int on_record(struct record *r, struct state *s) { return 1; }",
        "struct output { u64 a; }; int on_record(struct record *r, struct state *s, struct output *o) { o->b = 1; }",
        "struct output { u64 a[5000]; }; int on_record(struct record *r, struct state *s, struct output *o) {}",
    ],
)
def test_an_output_that_is_not_declared_as_it_is_used_is_a_syntax_error(engines: Engines, source: str) -> None:
    for name, result in engines.ask(source, {"records": np.arange(3)}):
        assert isinstance(result.error, GuestSyntaxError), name


def test_a_program_reads_memory_of_its_own_only_through_its_output(engines: Engines) -> None:
    source = """struct output { u64 it[4]; };
    int on_record(struct record *r, struct state *s, struct output *o) { return 1; }"""
    secret = np.full(4000, 0x5EC2E7, "<u8")
    writer = source.replace("{ return 1; }", "{ o->it[r->value & 3] = r->value; return 1; }")
    for name, result in engines.ask(writer, {"records": secret, "return": "outputs"}):
        assert result.unwrap()["outputs"]["it"].any(), name
    for name, result in engines.ask(source, {"records": secret, "return": "outputs"}):
        assert not result.unwrap()["outputs"]["it"].any(), name
