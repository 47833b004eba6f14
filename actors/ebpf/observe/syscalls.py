"""System calls by name: how many, how many failed, how long they took.

A call is counted when it is entered, its time when it returns; one that never
returns, such as exit(2), or is waiting when the observation ends, is unfinished.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from runvisor.actors.ebpf.observe.harness import Hook
from runvisor.actors.ebpf.observe.names import system_call_name
from runvisor.actors.ebpf.observe.program import Entry, ObservationProgram, seconds
from runvisor.policies.observations import Cell, Column

_BODY: Final = """
struct call { u64 at, number; };
struct count { u64 calls, returned, errors, ns, longest; };
INLINE void enter(u64 *arguments)
{
    u32 thread = rv_ids();
    if (!rv_is_observed(thread) || !rv_is_time())
        return;
    struct call call = { .number = arguments[1] };
    struct count none = {}, *count = rv_entry(&call.number, &none);
    if (!count)
        return;
    count->calls++;
    call.at = rv_now();
    if (rv_update(PENDING, &thread, &call, 0))
        rv_lose();
}
INLINE void leave(u64 *arguments)
{
    u32 thread = rv_ids();
    struct call *call = rv_lookup(PENDING, &thread);
    if (!call)
        return;
    u64 number = call->number, took = rv_now() - call->at;
    rv_delete(PENDING, &thread);
    if (!rv_is_time())
        return;
    struct count none = {}, *count = rv_entry(&number, &none);
    if (!count)
        return;
    count->returned++;
    count->ns += took;
    if (took > count->longest)
        count->longest = took;
    if (arguments[1] >= -4095ull)
        count->errors++;
}
"""
_KEY: Final = struct.Struct("<Q")
_COUNT: Final = struct.Struct("<5Q")
_HIGHEST: Final = 1 << 20
"""No number of a system call is larger; a larger one is an executor's invention."""


def _rows(entries: Iterable[Entry]) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for key, values in entries:
        (number,) = _KEY.unpack(key)
        counts = [_COUNT.unpack(value) for value in values]
        calls, returned, errors, ns = (sum(count[index] for count in counts) for index in range(4))
        longest = max(count[4] for count in counts)
        rows.append(
            (
                system_call_name(number) if number < _HIGHEST else f"number {number}",
                calls,
                errors,
                max(0, calls - returned),
                seconds(ns),
                seconds(ns) / returned if returned else 0.0,
                seconds(longest),
            )
        )
    return sorted(rows, key=lambda row: (-float(row[4]), -int(row[1]), str(row[0])))


SYSCALLS: Final = ObservationProgram(
    "syscalls",
    _BODY,
    (Hook("rv_at_enter", "sys_enter"), Hook("rv_at_leave", "sys_exit")),
    _KEY.size,
    _COUNT,
    pending_bytes=16,
    entries=1024,
    columns=(
        Column("syscall", "text"),
        Column("calls", "count"),
        Column("errors", "count"),
        Column("unfinished", "count"),
        Column("total_s", "seconds"),
        Column("mean_s", "seconds"),
        Column("longest_s", "seconds"),
    ),
    rows=_rows,
)
"""The observation ``syscalls``."""
