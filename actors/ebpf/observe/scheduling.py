"""How long threads that could run waited for a core: a histogram with a bucket for each power of two.

A wait begins when a thread is woken, or is taken off its core while it could go on,
and ends when it gets a core. As in BPF Performance Tools (Gregg 2019), "runqlat".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from runvisor.actors.ebpf.observe.harness import Hook
from runvisor.actors.ebpf.observe.program import Entry, ObservationProgram, seconds
from runvisor.policies.observations import Cell, Column

_BODY: Final = """
struct bucket { u64 waits, ns, longest; };
INLINE void begin(u32 thread)
{
    u64 now = rv_now();
    if (rv_is_observed(thread) && rv_is_time() && rv_update(PENDING, &thread, &now, 0))
        rv_lose();
}
INLINE void wake(u64 *arguments) { begin(rv_half(arguments[0] + AT_task_struct_pid)); }
INLINE void wake_new(u64 *arguments) { begin(rv_half(arguments[0] + AT_task_struct_pid)); }
INLINE u32 power_of_two(u64 value)
{
    u32 power = 0;
    if (value >> 32) { power += 32; value >>= 32; }
    if (value >> 16) { power += 16; value >>= 16; }
    if (value >> 8) { power += 8; value >>= 8; }
    if (value >> 4) { power += 4; value >>= 4; }
    if (value >> 2) { power += 2; value >>= 2; }
    return power + (value >> 1);
}
INLINE void change(u64 *arguments)
{
    u32 before = rv_half(arguments[1] + AT_task_struct_pid), after = rv_half(arguments[2] + AT_task_struct_pid);
    if ((arguments[0] & 1) || !(u32)arguments[3])
        begin(before);
    u64 *began = rv_lookup(PENDING, &after);
    if (!began)
        return;
    u64 took = rv_now() - *began, power;
    rv_delete(PENDING, &after);
    if (!rv_is_time())
        return;
    power = power_of_two(took);
    struct bucket none = {}, *bucket = rv_entry(&power, &none);
    if (!bucket)
        return;
    bucket->waits++;
    bucket->ns += took;
    if (took > bucket->longest)
        bucket->longest = took;
}
"""
_KEY: Final = struct.Struct("<Q")
_BUCKET: Final = struct.Struct("<3Q")
_POWERS: Final = 64


def _rows(entries: Iterable[Entry]) -> list[tuple[Cell, ...]]:
    found: dict[int, tuple[int, int, int]] = {}
    for key, values in entries:
        (power,) = _KEY.unpack(key)
        buckets = [_BUCKET.unpack(value) for value in values]
        if power < _POWERS:
            found[power] = (sum(b[0] for b in buckets), sum(b[1] for b in buckets), max(b[2] for b in buckets))
    if not found:
        return []
    return [  # empty buckets between full ones too: a histogram has no gaps
        (seconds(1 << power), seconds(2 << power), waits, seconds(ns), seconds(longest))
        for power in range(min(found), max(found) + 1)
        for waits, ns, longest in (found.get(power, (0, 0, 0)),)
    ]


SCHEDULING: Final = ObservationProgram(
    "sched",
    _BODY,
    (
        Hook("rv_at_wake", "sched_wakeup"),
        Hook("rv_at_wake_new", "sched_wakeup_new"),
        Hook("rv_at_change", "sched_switch"),
    ),
    _KEY.size,
    _BUCKET,
    pending_bytes=8,
    entries=_POWERS,
    columns=(
        Column("from_s", "seconds"),
        Column("below_s", "seconds"),
        Column("waits", "count"),
        Column("total_s", "seconds"),
        Column("longest_s", "seconds"),
    ),
    rows=_rows,
)
"""The observation ``sched``."""
