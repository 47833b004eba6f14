"""What does a record cost in the kernel, beside numpy, pure Python and Wasmtime?

Run it with ``python -m benchmarks.ebpf``. Needs root and bcc; wasm takes part where
ziglang is installed. A million records of 16 bytes; times of the runtimes are those of
`Runtime.execute`: from an array in this process, copied for the engine, to the value.
What lies before that, from client to pool, is the same for every language.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measure import Contender, interleave, report, summarise, timed
from runvisor.actors.ebpf import executor
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import PoolSize, Runtime, Watch
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Value

RECORDS = 1_000_000
ROUNDS = 30
EVENT = np.dtype([("id", "<u4"), ("kind", "<u4"), ("value", "<u8")])
ENTRY = "int on_record(struct record *r, struct state *s)"
SLOTS = 1024
VERIFIED, UNTRUSTED, WASM = "kernel, verified tier", "kernel, untrusted tier", "wasm/record on Wasmtime"
EXECUTOR, LOAD = "100 records, inside the executor", "cached load: fresh maps, verifier, JIT"
Events = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Program:
    """One filter in C, numpy and Python; all must answer alike."""

    source: str
    numpy: Callable[[Events], Value]
    python: Callable[[list[Any]], Value]


def filter_numpy(events: Events) -> Value:
    """Select and sum by masks."""
    chosen = events["value"][(events["kind"] == 3) & (events["value"] > 500)]
    return {"selected": len(chosen), "state": {"total": int(chosen.sum())}}


def filter_python(events: list[Any]) -> Value:
    """Select and sum in a loop."""
    total = selected = 0
    for _, kind, value in events:
        if kind == 3 and value > 500:
            total += value
            selected += 1
    return {"selected": selected, "state": {"total": total}}


def ema_numpy(events: Events) -> Value:
    """Group what lies above a running mean; the mean needs each one before it, so a ufunc accumulates it."""
    step = np.frompyfunc(lambda mean, value: (mean * 7 + value) >> 3, 2, 1)
    values = np.concatenate((np.zeros(1, "<u8"), events["value"])).astype(object)
    means = step.accumulate(values)[1:].astype("<u8")
    chosen = (events["kind"] != 3) & (events["value"] >= means)
    slots = events["id"][chosen] & (SLOTS - 1)
    most = np.zeros(SLOTS, "<u8")
    np.maximum.at(most, slots, events["value"][chosen])
    count = np.bincount(slots, minlength=SLOTS)
    state = {"mean": int(means[-1]), "count": count.tolist(), "most": most.tolist()}
    return {"selected": int(chosen.sum()), "state": state}


def ema_python(events: list[Any]) -> Value:
    """Group what lies above a running mean in a loop."""
    mean = selected = 0
    count, most = [0] * SLOTS, [0] * SLOTS
    for number, kind, value in events:
        mean = (mean * 7 + value) >> 3
        if kind != 3 and value >= mean:
            slot = number & (SLOTS - 1)
            count[slot] += 1
            most[slot] = max(most[slot], value)
            selected += 1
    return {"selected": selected, "state": {"mean": mean, "count": count, "most": most}}


def unique_numpy(events: Events) -> Value:
    """Select what differs from the last one of its slot: sorted by slot, the last one is the neighbour."""
    slots = events["id"] & (SLOTS - 1)
    order = np.argsort(slots, kind="stable")
    kinds, sorted_slots = events["kind"][order] + 1, slots[order]
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (kinds[1:] != kinds[:-1]) | (sorted_slots[1:] != sorted_slots[:-1])
    last = np.zeros(SLOTS, "<u4")
    last[slots] = events["kind"] + 1
    return {"selected": int(is_new.sum()), "state": {"last": last.tolist()}}


def unique_python(events: list[Any]) -> Value:
    """Select what differs from the last one of its slot in a loop."""
    last, selected = [0] * SLOTS, 0
    for number, kind, _ in events:
        slot = number & (SLOTS - 1)
        selected += last[slot] != kind + 1
        last[slot] = kind + 1
    return {"selected": selected, "state": {"last": last}}


PROGRAMS: Mapping[str, Program] = {
    "filter and sum": Program(
        f"struct state {{ u64 total; }};\n{ENTRY}\n"
        "{ if (r->kind == 3 && r->value > 500) { s->total += r->value; return 1; } return 0; }",
        filter_numpy,
        filter_python,
    ),
    "group by with a running mean": Program(
        f"struct state {{ u64 mean; u32 count[{SLOTS}]; u16 most[{SLOTS}]; }};\n{ENTRY}\n{{\n"
        "s->mean = (s->mean * 7 + r->value) >> 3;\n"
        "if (r->kind == 3 || r->value < s->mean) return 0;\n"
        f"u32 slot = r->id & {SLOTS - 1};\ns->count[slot]++;\n"
        "if (r->value > s->most[slot]) s->most[slot] = r->value;\nreturn 1;\n}",
        ema_numpy,
        ema_python,
    ),
    "deduplication": Program(
        f"struct state {{ u32 last[{SLOTS}]; }};\n{ENTRY}\n{{\n"
        f"u32 slot = r->id & {SLOTS - 1}, kind = r->kind + 1;\nint is_new = s->last[slot] != kind;\n"
        "s->last[slot] = kind;\nreturn is_new;\n}",
        unique_numpy,
        unique_python,
    ),
}


def events(count: int = RECORDS) -> Events:
    """Return records whose fields cannot be foretold."""
    random = np.random.default_rng(7)
    made = np.zeros(count, EVENT)
    made["id"] = random.integers(0, 1 << 32, count)
    made["kind"] = random.integers(0, 8, count)
    made["value"] = random.integers(0, 1000, count)
    return made


def on(runtime: Runtime, trust: Trust, source: str, records: Events) -> Callable[[], Value]:
    """Return a call of a runtime, with the copy of the records and everything else."""
    grant = Grant("bench", trust, Permissions(memory_bytes=64 * MiB))
    task = Task(source, "c-record", {"records": records})
    return lambda: runtime.execute(task, "record", grant, Watch()).unwrap()


def checked(call: Callable[[], Value], expected: Value) -> Contender:
    """Time a call that has answered right once."""
    if call() != expected:
        raise AssertionError("the answers differ")

    def once() -> None:
        call()

    return timed(once)


def inside_an_executor(runtime: EbpfRuntime) -> dict[str, Contender]:
    """Return what an executor does for a short call, and to load a program that is compiled, in this process."""
    program = runtime._programs.find(PROGRAMS["filter and sum"].source, EVENT, collects=False)
    artifact = program.artifacts[Trust.VERIFIED]
    load = {
        "instructions": artifact.instructions,
        "cost": artifact.cost,
        "record_bytes": artifact.record_bytes,
        "state_bytes": artifact.state_bytes,
        "output_bytes": 0,
        "collects": False,
        "blocks": 1,
    }
    loaded = executor.Program(load, runtime._kernel_functions)
    run = {"block": 0, "records": 100, "state": b"", "last": True, "deadline": float("inf")}

    clock = executor.CpuClock()

    def short() -> None:
        assert executor.answer_to(loaded, run, clock)["op"] == "done"

    kept: list[executor.Program] = []

    def fresh() -> None:
        kept.append(executor.Program(load, runtime._kernel_functions))

    def load_once(count: int) -> list[float]:
        times = timed(fresh)(count)
        while kept:  # unloading is not part of it
            kept.pop().close()
        return times

    return {EXECUTOR: timed(short), LOAD: load_once}


def main() -> None:
    """Measure and report."""
    records = events()
    listed = records.tolist()
    with ExitStack() as stack:
        kernel = EbpfRuntime(PoolSize(minimum=1, maximum=4))
        stack.callback(kernel.close)
        kernel.start()
        engines: dict[str, tuple[Runtime, Trust]] = {
            VERIFIED: (kernel, Trust.VERIFIED),
            UNTRUSTED: (kernel, Trust.UNTRUSTED),
        }
        wasm = WasmRuntime(PoolSize(minimum=1, maximum=4))
        if dict(wasm.probe().unavailable_variants).get("record") is None:
            stack.callback(wasm.close)
            wasm.start()
            engines[WASM] = (wasm, Trust.VERIFIED)
        for name, program in PROGRAMS.items():
            expected = program.numpy(records)
            contenders = {
                engine: checked(on(runtime, trust, program.source, records), expected)
                for engine, (runtime, trust) in engines.items()
            }
            contenders["numpy"] = checked(partial(program.numpy, records), expected)
            contenders["pure Python"] = checked(partial(program.python, listed), expected)
            bars: dict[str, float] = {}
            extra: dict[str, Any] = {"records": RECORDS}
            bursts = dict.fromkeys(engines, 4)
            if name == "filter and sum":
                bars = {VERIFIED: 4.0, UNTRUSTED: 14.0, EXECUTOR: 0.010, LOAD: 0.2}
                contenders |= inside_an_executor(kernel)
                bursts |= {EXECUTOR: 200, LOAD: 10}
            slow = {} if name == "filter and sum" else {"numpy": ROUNDS // 3}
            times = interleave(contenders, rounds=ROUNDS, repeats={"pure Python": ROUNDS // 3, **slow}, bursts=bursts)
            median = {contender: statistics.median(values) for contender, values in times.items()}
            for contender in (*engines, "numpy", "pure Python"):
                extra[f"{contender}, ns per record"] = round(median[contender] / RECORDS * 1e9, 2)
            ratio = median["numpy"] / median[VERIFIED]
            verdict = "" if name == "filter and sum" else f", bar 15: {'met' if ratio >= 15 else 'MISSED'}"
            extra["numpy over the verified tier"] = f"{ratio:.1f} times{verdict}"
            report(f"ebpf {name}", summarise(times, VERIFIED, bars), VERIFIED, extra)


if __name__ == "__main__":
    main()
