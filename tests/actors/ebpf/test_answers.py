"""Record programs in the kernel answer what numpy answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.bytecode import Loop
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

pytestmark = [pytest.mark.kernel, pytest.mark.root]

EVENT = np.dtype([("id", "<u4"), ("kind", "<u4"), ("value", "<u8")])
Ask = Callable[..., Result]


def function(body: str, state: str = "u64 total;", before: str = "") -> str:
    """Return a program whose function has this body."""
    declared = f"struct state {{ {state} }};\n" if state else ""
    return f"{declared}{before}\nint on_record(struct record *r, struct state *s)\n{{\n{body}\nreturn 0;\n}}\n"


FILTER = function("if (r->kind == 3 && r->value > 500) { s->total += r->value; return 1; }")
M = 1 << 64


def events(count: int, seed: int = 1) -> Any:
    random = np.random.default_rng(seed)
    records = np.zeros(count, EVENT)
    records["id"] = random.integers(0, 1 << 32, count)
    records["kind"] = random.integers(0, 8, count)
    records["value"] = random.integers(0, 1000, count)
    return records


@pytest.fixture(scope="module", params=["may_goto", "iterator"])
def each_loop(request: pytest.FixtureRequest, asker: Callable[[EbpfRuntime], Ask]) -> Iterator[Ask]:
    """A runtime of each kind of loop, whichever this kernel would choose."""
    loop: Loop = request.param
    other = EbpfRuntime(PoolSize(minimum=1, maximum=2), loop=loop)
    try:
        other.start()
        yield asker(other)
    finally:
        other.close()


@pytest.mark.parametrize("trust", list(Trust))
@pytest.mark.parametrize("count", [0, 1, 7, 100_000])
def test_a_filter_and_a_sum_equal_numpy(each_loop: Ask, trust: Trust, count: int) -> None:
    records = events(count)
    chosen = records[(records["kind"] == 3) & (records["value"] > 500)]["value"]
    value = each_loop(FILTER, records, trust=trust).unwrap()
    assert value == {"selected": len(chosen), "state": {"total": int(chosen.sum())}}


def test_a_stateful_group_by_equals_python(ask: Ask) -> None:
    records = events(50_000)
    source = function(
        """
        s->mean = (s->mean * 7 + r->value) >> 3;
        if (r->kind == 3 || r->value < s->mean)
            return 0;
        u32 key = r->id & 1023;
        s->count[key]++;
        if (r->value > s->most[key])
            s->most[key] = r->value;
        return 1;
        """,
        "u64 mean; u32 count[1024]; u16 most[1024];",
    )
    mean, selected, counts, most = 0, 0, [0] * 1024, [0] * 1024
    for number, kind, amount in records.tolist():
        mean = (mean * 7 + amount) >> 3
        if kind != 3 and amount >= mean:
            selected += 1
            counts[number & 1023] += 1
            most[number & 1023] = max(most[number & 1023], amount)
    assert ask(source, records).unwrap() == {
        "selected": selected,
        "state": {"mean": mean, "count": counts, "most": most},
    }


kinds = st.sampled_from(["?", "u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8", "<M8[ns]"])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.lists(st.tuples(kinds, st.none() | st.integers(1, 4)), min_size=1, max_size=6),
    align=st.booleans(),
    count=st.integers(0, 3000),
    noise=st.integers(0, 2**32),
)
def test_sums_of_every_field_of_any_dtype_equal_numpy(
    ask: Ask, fields: list[tuple[str, int | None]], align: bool, count: int, noise: int
) -> None:
    described: list[Any] = [
        (f"f{n}", kind) if size is None else (f"f{n}", kind, (size,)) for n, (kind, size) in enumerate(fields)
    ]
    dtype = np.dtype(described, align=align)
    records = np.frombuffer(np.random.default_rng(noise).bytes(count * dtype.itemsize), dtype)
    lines = []
    for n, (_, size) in enumerate(fields):
        lines += [f"s->f{n} += r->f{n}{'' if size is None else f'[{i}]'};" for i in range(size or 1)]
    state = "".join(f"u64 f{n};" for n in range(len(fields)))
    expected = {}
    for n, (kind, _) in enumerate(fields):
        sign = "i" if np.dtype(kind).kind in "imM" else "u"
        bits = np.ascontiguousarray(records[f"f{n}"]).view(f"<{sign}{np.dtype(kind).itemsize}")
        expected[f"f{n}"] = sum(bits.ravel().tolist()) % M
    odd = records[::2]
    assert ask(function("\n".join(lines) + "return 1;", state), records).unwrap() == {
        "selected": count,
        "state": expected,
    }
    assert ask(function("\n".join(lines) + "return 1;", state), odd).unwrap()["selected"] == len(odd)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    conditions=st.lists(
        st.tuples(
            st.sampled_from(["id", "kind", "value"]),
            st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
            st.integers(0, 2**32 - 1) | st.integers(0, 1000),
            st.sampled_from(["s->a += r->value", "s->b ^= r->id", "s->c = r->kind", "s->a *= 3"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_branches_of_every_shape_equal_python(ask: Ask, conditions: list[tuple[str, str, int, str]]) -> None:
    records = events(500)
    body = "\n".join(
        f"if (r->{f} {op} {n}ull) {{ {act}; picked = {i % 2}; }}" for i, (f, op, n, act) in enumerate(conditions)
    )
    a = b = c = selected = 0
    for number, kind, amount in records.tolist():
        values, picked = {"id": number, "kind": kind, "value": amount}, 0
        for i, (field, op, n, act) in enumerate(conditions):
            x = values[field]
            if {"<": x < n, "<=": x <= n, ">": x > n, ">=": x >= n, "==": x == n, "!=": x != n}[op]:
                picked = i % 2
                a = (a + amount) % M if act.startswith("s->a +=") else a * 3 % M if act.startswith("s->a *=") else a
                b = b ^ number if act.startswith("s->b") else b
                c = kind if act.startswith("s->c") else c
        selected += picked
    program = function(f"int picked = 0;\n{body}\nreturn picked;", "u64 a, b; u32 c;")
    assert ask(program, records).unwrap() == {"selected": selected, "state": {"a": a, "b": b, "c": c}}


def test_a_state_starts_from_the_inputs(ask: Ask) -> None:
    source = function("s->low -= 1; s->seen[r->id & 1] += 1; return 1;", "s16 low; u64 seen[2]; s64 kept;")
    records = np.zeros(4, EVENT)
    value = ask(source, records, state={"low": -3, "seen": [10, 20], "kept": -(2**63)}).unwrap()
    assert value["state"] == {"low": -7, "seen": [14, 20], "kept": -(2**63)}


def test_a_program_may_go_without_a_state_and_with_helper_functions(ask: Ask) -> None:
    source = function(
        "return is_odd(r->id) && table(r->kind) > 4;",
        "",
        """
        #define LIMIT 5
        enum { LOW = 2 };
        int is_odd(u32 number) { return number & 1; }
        static inline u32 table(u32 kind)
        {
            switch (kind) { case 1: return LOW; case 2: return LIMIT; case 3: return 9; default: return 0; }
        }
        """,
    )
    records = events(1000)
    expected = ((records["id"] & 1 == 1) & np.isin(records["kind"], [2, 3])).sum()
    assert ask(source, records).unwrap() == {"selected": int(expected), "state": {}}


def test_loops_with_a_small_constant_bound_are_unrolled(ask: Ask) -> None:
    dtype = np.dtype([("xs", "<u4", (16,))])
    records = np.arange(160, dtype="<u4").view(dtype)
    source = function("#pragma unroll\nfor (int i = 0; i < 16; i++) s->total += r->xs[i] * (i + 1); return 1;")
    expected = int((np.arange(160).reshape(10, 16) * np.arange(1, 17)).sum())
    assert ask(source, records).unwrap()["state"]["total"] == expected


def test_a_plain_array_has_the_field_value(ask: Ask) -> None:
    source = function("s->total += r->value; return r->value < 0;", "s64 total;")
    assert ask(source, np.array([3, -5, 1], "<i4")).unwrap() == {"selected": 1, "state": {"total": -1}}


def test_records_of_every_size_up_to_the_largest_keep_their_order(ask: Ask) -> None:
    for size in (1, 3, 8, 1000, 32_767):
        records = np.zeros(300, np.dtype([("b", "u1", (size,))]))
        records["b"][:, size - 1] = np.arange(300) % 251
        source = function(f"s->hash = s->hash * 31 + r->b[{size - 1}]; return 1;", "u64 hash;")
        expected = 0
        for byte in records["b"][:, size - 1].tolist():
            expected = (expected * 31 + byte) % M
        assert ask(source, records).unwrap() == {"selected": 300, "state": {"hash": expected}}


def test_more_records_than_the_map_holds_go_through_it_in_parts(ask: Ask) -> None:
    records = np.arange(9_000_000, dtype="<u8")
    source = function("s->total += r->value; return r->value % 3 == 0;")
    value = ask(source, records, memory_bytes=128 * MiB).unwrap()
    assert value == {"selected": 3_000_000, "state": {"total": sum(range(9_000_000))}}


def test_many_tasks_at_once_get_each_their_own_answer(ask: Ask) -> None:
    def one(number: int) -> bool:
        records = events(2000, seed=number)
        source = function(f"s->total += r->value * {number}; return r->kind > {number % 8};")
        value = ask(source, records, principal=f"principal-{number % 2}").unwrap()
        return value == {
            "selected": int((records["kind"] > number % 8).sum()),
            "state": {"total": int(records["value"].sum()) * number},
        }

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(one, itertools.chain(range(1, 9), range(1, 9))))


def test_what_is_collected_of_many_records_comes_in_order_and_leaves_nothing_behind(runtime: EbpfRuntime) -> None:
    source = (
        "struct output { u64 twice; };\n"
        "int on_record(struct record *r, struct state *s, struct output *o)\n"
        "{ if (r->value % 3) return 0; o->twice = r->value * 2; return 1; }\n"
    )
    grant = Grant("collector", Trust.VERIFIED, Permissions(memory_bytes=128 * MiB, output_bytes=128 * MiB))
    for count in (1_500_000, 10, 1_400_001):  # more than the map holds, and by far less after it
        records = np.arange(count, dtype="<u8")
        task = Task(source, "c-record", {"records": records, "return": ["indices", "outputs"]})
        value: Any = runtime.execute(task, "record", grant, Watch()).unwrap()
        expected = np.arange(0, count, 3)
        assert np.array_equal(value["indices"], expected)
        assert np.array_equal(value["outputs"]["twice"], expected * 2)
