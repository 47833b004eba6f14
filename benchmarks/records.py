"""What does it cost to get records, places and outputs back from a record program, not only a count?

Run it with ``python -m benchmarks.records``. Needs root; bcc for the kernel, ziglang for
wasm. 100,000 records of 16 bytes, the change of each against the last one of its slot;
times are those of `Runtime.execute`, from an array in this process to the arrays back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from benchmarks.ebpf import EVENT, SLOTS, UNTRUSTED, VERIFIED, WASM, events
from benchmarks.measure import interleave, report, summarise, timed
from runvisor.actors import registry
from runvisor.actors.runtime import PoolSize, Runtime, Watch
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Value

RECORDS = 100_000
ROUNDS = 40
STATE = f"struct state {{ u64 last[{SLOTS}]; }};\n"
OUTPUT = "struct output { u32 id, slot; s64 change; };\n"
BODY = """{{
    u32 slot = r->id & {mask};
    s64 change = r->value - s->last[slot];
    s->last[slot] = r->value;
    {output}
    return change > 0;
}}
"""
PLAIN = f"{STATE}int on_record(struct record *r, struct state *s)\n" + BODY.format(mask=SLOTS - 1, output="")
WRITING = f"{STATE}{OUTPUT}int on_record(struct record *r, struct state *s, struct output *o)\n" + BODY.format(
    mask=SLOTS - 1, output="o->id = r->id; o->slot = slot; o->change = change;"
)
CHANGE = np.dtype([("id", "<u4"), ("slot", "<u4"), ("change", "<i8")])
Array = np.ndarray[Any, np.dtype[Any]]


def by_numpy(records: Array) -> dict[str, Array]:
    """Sorted by slot, the last one of a slot is the neighbour."""
    slots = records["id"] & (SLOTS - 1)
    order = np.argsort(slots, kind="stable")
    values, sorted_slots = records["value"][order].astype("<i8"), slots[order]
    before = np.zeros(len(order), "<i8")
    before[1:] = np.where(sorted_slots[1:] == sorted_slots[:-1], values[:-1], 0)
    change = np.empty(len(order), "<i8")
    change[order] = values - before
    indices = np.flatnonzero(change > 0)
    outputs = np.empty(len(indices), CHANGE)
    outputs["id"], outputs["slot"], outputs["change"] = records["id"][indices], slots[indices], change[indices]
    return {"indices": indices, "mask": change > 0, "records": records[indices], "outputs": outputs}


def by_python(rows: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Make the outputs in a loop."""
    last, outputs = [0] * SLOTS, []
    for number, _, value in rows:
        slot = number & (SLOTS - 1)
        change = value - last[slot]
        last[slot] = value
        if change > 0:
            outputs.append((number, slot, change))
    return outputs


def asked(runtime: Runtime, trust: Trust, records: Array, part: str) -> Callable[[], None]:
    """Return a call that answers with one part, after it has answered right once."""
    grant = Grant("bench", trust, Permissions(output_bytes=64 * MiB))
    inputs: dict[str, Value] = {"records": records} | ({"return": part} if part else {})
    task = Task(WRITING if part == "outputs" else PLAIN, "c-record", inputs)
    value = runtime.execute(task, "record", grant, Watch()).unwrap()
    if part and value[part].tolist() != by_numpy(records)[part].tolist():
        raise AssertionError(f"the {part} differ")

    def once() -> None:
        runtime.execute(task, "record", grant, Watch()).unwrap()

    return once


def dropping(call: Callable[[], object]) -> Callable[[], None]:
    """Return a call without its answer."""

    def once() -> None:
        call()

    return once


def main() -> None:
    """Measure and report."""
    records = events(RECORDS)
    assert records.dtype == EVENT
    rows = records.tolist()
    with ExitStack() as stack:
        engines: dict[str, tuple[Runtime, Trust]] = {}
        for runtime, tiers in (
            ("ebpf", {VERIFIED: Trust.VERIFIED, UNTRUSTED: Trust.UNTRUSTED}),
            ("wasm", {WASM: Trust.UNTRUSTED}),
        ):
            probe = registry.probe(runtime)
            if probe.available and "record" not in dict(probe.unavailable_variants):
                started = registry.create(runtime, PoolSize(minimum=1, maximum=4))
                stack.callback(started.close)
                started.start()
                engines |= {name: (started, trust) for name, trust in tiers.items()}
        reference = next(iter(engines))
        for part in ("", "indices", "mask", "records", "outputs"):
            contenders = {
                name: timed(asked(started, trust, records, part)) for name, (started, trust) in engines.items()
            }
            if part == "outputs":
                contenders["numpy, all four at once"] = timed(dropping(partial(by_numpy, records)))
                contenders["pure Python, outputs only"] = timed(dropping(partial(by_python, rows)))
            times = interleave(contenders, rounds=ROUNDS, bursts=dict.fromkeys(engines, 4))
            report(f"records {part or 'count'}", summarise(times, reference), reference, {"records": RECORDS})


if __name__ == "__main__":
    main()
