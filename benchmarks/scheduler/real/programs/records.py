"""Record programs in C: the kernel or wasm runs them."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np

from benchmarks.scheduler.real.programs.program import Program
from runvisor.policies.trust import Trust
from runvisor.policies.values import Value

_EVENT: Final = np.dtype([("id", "<u4"), ("kind", "<u4"), ("value", "<u8")])
_ENTRY: Final = "int on_record(struct record *r, struct state *s)"
_FILTERS: Final = "record filters"
_GROUPS: Final = "record groups"
_SERIES: Final = "record series"
_SIZES: Final = (50, 20_000, 300_000)


@cache
def _events(size: int) -> np.ndarray[Any, np.dtype[Any]]:
    chance = np.random.default_rng(size)
    events = np.zeros(size, _EVENT)
    events["id"] = chance.integers(0, 1 << 20, size)
    events["kind"] = chance.integers(0, 8, size)
    events["value"] = chance.integers(0, 1_000, size)
    events.setflags(write=False)
    return events


def _records(size: int) -> Value:
    return {"records": _events(size)}


def _program(name: str, family: str, state: str, body: str, sizes: tuple[int, ...] = _SIZES) -> Program:
    source = f"struct state {{ {state} }};\n\n{_ENTRY}\n{{\n{body}\n}}\n"
    return Program(name, family, "c-record", source, sizes, _records, Trust.VERIFIED)


RECORDS: Final = (
    _program(
        "filter and sum", _FILTERS, "u64 total;",
        "    if (r->kind != 3 || r->value <= 500)\n        return 0;\n    s->total += r->value;\n    return 1;",
    ),
    _program("every seventh", _FILTERS, "u64 seen;", "    s->seen++;\n    return s->seen % 7 == 0;"),
    _program(
        "range of ids", _FILTERS, "u32 least; u32 most;",
        "    if (!s->least || r->id < s->least)\n        s->least = r->id;\n"
        "    if (r->id > s->most)\n        s->most = r->id;\n    return r->id > 500000;",
        (100, 50_000, 200_000),
    ),
    _program(
        "count by kind", _GROUPS, "u64 counts[8]; u64 sums[8];",
        "    u32 k = r->kind & 7;\n    s->counts[k]++;\n    s->sums[k] += r->value;\n    return 0;",
    ),
    _program(
        "most by slot", _GROUPS, "u64 most[1024];",
        "    u32 k = r->id & 1023;\n    if (r->value > s->most[k])\n        s->most[k] = r->value;\n    return 0;",
    ),
    _program(
        "new in slot", _GROUPS, "u32 last[1024];",
        "    u32 k = r->id & 1023;\n    u32 kind = r->kind + 1;\n    if (s->last[k] == kind)\n        return 0;\n"
        "    s->last[k] = kind;\n    return 1;",
        (20, 10_000, 100_000),
    ),
    _program(
        "running mean of values", _SERIES, "u64 mean;",
        "    s->mean = (s->mean * 7 + r->value) >> 3;\n    return r->value >= s->mean;",
    ),
    _program(
        "rises in a row", _SERIES, "u64 last; u64 row; u64 longest;",
        "    s->row = r->value > s->last ? s->row + 1 : 0;\n    s->last = r->value;\n"
        "    if (s->row > s->longest)\n        s->longest = s->row;\n    return s->row > 3;",
    ),
    _program(
        "checksum", _SERIES, "u64 sum;",
        "    s->sum = (s->sum ^ r->value) * 1099511628211ULL;\n    s->sum ^= r->id;\n    return 0;",
        (100, 50_000, 200_000),
    ),
)  # fmt: skip
