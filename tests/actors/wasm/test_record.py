"""Record programs on wasm: the kernel's language, layouts and value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runvisor.actors.wasm.agreement import WINDOW_BYTES
from runvisor.actors.wasm.compilers import ziglang
from runvisor.policies import errors
from tests.actors.wasm.conftest import Run

pytestmark = [pytest.mark.root, pytest.mark.skipif(ziglang.find() is None, reason=ziglang.REMEDY)]

DTYPE = np.dtype([("id", "<u4"), ("kind", "<u2"), ("value", "<i8")])
PROGRAM = """
struct state { s64 total; u32 seen[4]; u8 last; };
int on_record(struct record *r, struct state *s)
{
    s->total += r->value;
    s->seen[r->kind & 3]++;
    s->last = r->id;
    return r->value > 50;
}
"""


def records(count: int, seed: int = 1) -> np.ndarray[Any, np.dtype[Any]]:
    random = np.random.default_rng(seed)
    made = np.zeros(count, DTYPE)
    made["id"] = np.arange(count)
    made["kind"] = random.integers(0, 1 << 16, count)
    made["value"] = random.integers(-100, 100, count)
    return made


def expected(data: np.ndarray[Any, np.dtype[Any]], total: int = 0) -> dict[str, Any]:
    return {
        "selected": int((data["value"] > 50).sum()),
        "state": {
            "total": total + int(data["value"].sum()),
            "seen": [int(((data["kind"] & 3) == kind).sum()) for kind in range(4)],
            "last": int(data["id"][-1]) & 0xFF if len(data) else 0,
        },
    }


def test_the_value_is_the_count_and_the_state(record: Run) -> None:
    data = records(1000)
    result = record(PROGRAM, {"records": data})
    assert result.unwrap() == expected(data)
    assert (result.runtime, result.variant) == ("wasm", "record")


def test_the_state_goes_from_window_to_window(record: Run) -> None:
    count = 3 * WINDOW_BYTES // DTYPE.itemsize + 7
    data = records(count)
    assert record(PROGRAM, {"records": data, "state": {"total": 1000}}).unwrap() == expected(data, 1000)


@pytest.mark.parametrize("count", [0, 1, WINDOW_BYTES // 16, WINDOW_BYTES // 16 + 1, 2 * WINDOW_BYTES // 16])
def test_counts_at_the_edges_of_a_window(record: Run, count: int) -> None:
    code = "struct state { u64 sum; }; int on_record(struct record *r, struct state *s) { s->sum += r->a; return 1; }"
    data = np.zeros(count, [("a", "<u8"), ("b", "<u8")])
    data["a"] = np.arange(count)
    assert record(code, {"records": data}).unwrap() == {"selected": count, "state": {"sum": count * (count - 1) // 2}}


def test_strided_and_reversed_records(record: Run) -> None:
    data = records(500)[::-3]
    assert record(PROGRAM, {"records": data}).unwrap() == expected(data)


def test_a_program_without_state(record: Run) -> None:
    code = "int on_record(struct record *r, struct state *s) { return r->value & 1; }"
    assert record(code, {"records": np.arange(10, dtype="<u4")}).unwrap() == {"selected": 5, "state": {}}


def test_the_second_run_is_warm_and_starts_from_the_first_state(record: Run) -> None:
    data = records(10)
    assert record(PROGRAM, {"records": data}).unwrap() == record(PROGRAM, {"records": data}).unwrap()
    assert record(PROGRAM, {"records": data}).usage.start_kind == "warm"


def test_widths_are_those_of_the_kernel(record: Run) -> None:
    code = """struct state { u64 widths[4]; s64 low; };
    int on_record(struct record *r, struct state *s) {
        s->widths[0] = sizeof(long); s->widths[1] = sizeof(void *); s->widths[2] = sizeof(sizeof(int));
        s->widths[3] = (unsigned long)-1 >> 32; s->low = (char)-1;
        return 0;
    }"""
    state = record(code, {"records": records(1)}).unwrap()["state"]
    assert state == {"widths": [8, 8, 8, 0xFFFFFFFF], "low": -1}


ARITHMETIC = """
struct state { u64 sum; s64 signed_sum; u32 hash; u64 bits; };
int on_record(struct record *r, struct state *s) {
    s->sum += (u64)r->a * r->b;
    s->signed_sum += (s64)(r->c >> 3) - (r->d << 2);
    s->hash = (s->hash ^ r->a) * 16777619u;
    s->bits ^= (r->b << (r->a & 63)) | (r->b >> (63 - (r->a & 63)));
    return (s32)r->d < (s32)r->a;
}"""


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, (1 << 32) - 1),
            st.integers(0, (1 << 64) - 1),
            st.integers(-(1 << 63), (1 << 63) - 1),
            st.integers(-(1 << 15), (1 << 15) - 1),
        ),
        max_size=20,
    )
)
def test_arithmetic_is_that_of_c(record: Run, rows: list[tuple[int, int, int, int]]) -> None:
    data = np.array(rows, [("a", "<u4"), ("b", "<u8"), ("c", "<i8"), ("d", "<i2")])
    total = signed = digest = bits = selected = 0
    for a, b, c, d in rows:
        total = (total + a * b) % (1 << 64)
        signed = (signed + (c >> 3) - (d << 2) + (1 << 63)) % (1 << 64) - (1 << 63)
        digest = ((digest ^ a) * 16777619) % (1 << 32)
        bits ^= ((b << (a & 63)) % (1 << 64)) | (b >> (63 - (a & 63)))
        selected += d < (a - (1 << 32) if a >= 1 << 31 else a)
    state = {"sum": total, "signed_sum": signed, "hash": digest, "bits": bits}
    assert record(ARITHMETIC, {"records": data}).unwrap() == {"selected": selected, "state": state}


@pytest.mark.parametrize(
    ("code", "where"),
    [
        ("int on_record(struct record *r, struct state *s)\n{ return r->nope; }", "2:13"),
        ("int on_record(struct record *r, struct state *s) { return 1.5 > r->id; }", "1:59"),
        ("int other(void) { return 1; }", "1:1"),
        ("#include <stdio.h>\nint on_record(struct record *r, struct state *s) { return 1; }", "1:1"),
        ("int g(int); int on_record(struct record *r, struct state *s) { return g(1); }", ""),
    ],
)
def test_a_program_that_does_not_compile_says_where(record: Run, code: str, where: str) -> None:
    error = record(code, {"records": records(1)}).error
    assert isinstance(error, errors.GuestSyntaxError)
    assert error.where == where


@pytest.mark.parametrize("inputs", [None, [1], {"records": [1, 2]}, {"records": records(1), "more": 1}])
def test_inputs_that_are_no_records_are_refused(record: Run, inputs: Any) -> None:
    with pytest.raises(errors.InvalidTask):
        record(PROGRAM, inputs)


def test_a_first_state_that_does_not_fit_is_refused(record: Run) -> None:
    with pytest.raises(errors.InvalidTask):
        record(PROGRAM, {"records": records(1), "state": {"nope": 1}})


def test_records_beyond_the_memory_limit_are_refused(record: Run) -> None:
    error = record(PROGRAM, {"records": records(1000)}, memory_bytes=1000 * DTYPE.itemsize).error
    assert isinstance(error, errors.MemoryLimitExceeded)


def test_a_state_beyond_the_output_limit_is_refused(record: Run) -> None:
    code = "struct state { u64 many[1000]; }; int on_record(struct record *r, struct state *s) { return 0; }"
    assert record(code, {"records": records(1)}).ok
    assert isinstance(record(code, {"records": records(1)}, output_bytes=100).error, errors.OutputLimitExceeded)


def test_an_endless_program_ends_at_its_deadline(record: Run) -> None:
    code = """int on_record(struct record *r, struct state *s) {
        for (volatile u32 i = 0; r->id >= 5; i++) ;
        return 1;
    }"""
    result = record(code, {"records": records(10)}, timeout_s=0.2)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert result.error.details["records_left"] > 0
    assert result.usage.wall_s < 10


def test_a_wild_pointer_stays_inside_the_instance(record: Run) -> None:
    code = """struct state { u64 n; };
    int on_record(struct record *r, struct state *s) { *(volatile u64 *)(1ull << 40) = 1; return 1; }"""
    assert isinstance(record(code, {"records": records(1)}).error, errors.GuestException)
    assert record(PROGRAM, {"records": records(10)}).ok
