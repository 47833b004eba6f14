"""What does a fresh, limited wasm instance cost, in the engine and through the pool, beside what people use today?

Run it with ``python -m benchmarks.wasm``. Needs root; cc, node and the package
quickjs take part where they are installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import wasmtime

from benchmarks.measure import Contender, apart, interleave, report, summarise, timed
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.engines import Engine
from runvisor.actors.wasm.fastpath import Frame
from runvisor.actors.wasm.modules import compile_module
from runvisor.actors.wasm.profiles import TABLE_ELEMENTS, TABLES
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.actors.wasm.wasi import Wasi
from runvisor.policies.errors import TimeLimitExceeded
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.supervisor.client import Supervisor

ROUNDS = 40
ADD = '(module (memory 1) (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))'
LOOP = '(module (func (export "main") (loop $l (br $l))))'
CHATTY = """(module (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "main") (loop $l (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 8))) (br $l))))"""
NATIVE = "#include <stdio.h>\n#include <stdlib.h>\nint main(int c, char **v) { return atoi(v[1]) + atoi(v[2]) != 3; }\n"
ENGINE, POOL = "fresh instance + call, in the engine", "fresh instance + call, through the pool actor"
BATCH = 100
Parts = tuple[Callable[[], None], Callable[[], None]]


def in_engine() -> Parts:
    """A fresh store, limits, instance, call and end, as an engine process does it."""
    engine = _engine(4)
    module = compile_module(engine, ADD.encode(), is_text=True)
    function = module.functions["add"]
    frame, arguments = Frame(), struct.pack("<i12xi12x", 1, 2)

    def call() -> None:
        store = engine.store(frame, 1)
        store.limit(64 * MiB, TABLE_ELEMENTS, TABLES)
        store.instantiate(module.pre)
        result = store.call(function.name, arguments, function.slots, function.result_bytes)
        store.close()
        assert result[0] == 3

    return call, lambda: None


def public_api() -> Parts:
    """The same through the package's own API."""
    engine = wasmtime.Engine()
    linked = wasmtime.Linker(engine).instantiate_pre(wasmtime.Module(engine, ADD))

    def call() -> None:
        with wasmtime.Store(engine) as store:
            store.set_limits(memory_size=64 * MiB, table_elements=1000, instances=1, tables=4, memories=1)
            add = linked.instantiate(store).exports(store)["add"]
            assert isinstance(add, wasmtime.Func)
            assert add(store, 1, 2) == 3

    return call, lambda: None


def quickjs_package() -> Parts:
    """A fresh context of the quickjs package."""
    import quickjs

    def call() -> None:
        assert quickjs.Context().eval("1 + 2") == 3

    return call, lambda: None


def programs(folder: Path) -> dict[str, Callable[[], None]]:
    """Return the programs that are installed here; each is started anew, as isolation by process needs."""
    found = {"python -c '1+2'": _command(sys.executable, "-c", "1+2")}
    if cc := shutil.which("cc"):
        source, binary = folder / "add.c", folder / "add"
        source.write_text(NATIVE)
        subprocess.run([cc, "-O2", str(source), "-o", str(binary)], check=True)
        found["native program"] = _command(str(binary), "1", "2")
    if node := shutil.which("node"):
        found["node -e '1+2'"] = _command(node, "-e", "1+2")
    return found


def executions_per_core_s(supervisor: Supervisor, batches: int = 30) -> float:
    """Return how many fresh executions in batches a second of one core pays for.

    Counts all that the machine's cores do meanwhile: client, pool, engine, and
    whatever else runs.
    """
    inputs = ([number, 1] for number in range((5 + batches) * BATCH))
    results = supervisor.map(ADD, inputs, language="wat", max_parallel=1)
    for _ in range(5 * BATCH):  # until the batches have grown
        next(results)
    began_s = _busy_s()
    assert sum(1 for _ in results) == batches * BATCH
    return batches * BATCH / (_busy_s() - began_s)


def _busy_s() -> float:
    """Return the seconds that all cores together have worked since the machine started (proc_stat(5))."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = map(int, fields)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def deadline_overshoot_ms(*, is_busy: bool, times: int = 20) -> list[float]:
    """Return by how much a loop outlives its deadline of 50 ms, with the engine's GIL free or busy."""
    runtime = WasmRuntime(PoolSize(maximum=4))
    runtime.start()

    def run(code: str, timeout_s: float) -> float:
        task = Task(code, "wat", None, Permissions(timeout_s=timeout_s))
        result = runtime.execute(task, "module", Grant("bench", Trust.UNTRUSTED, task.permissions), Watch())
        assert isinstance(result.error, TimeLimitExceeded)
        return result.usage.wall_s

    try:
        run(LOOP, 0.05)
        busy = threading.Thread(target=run, args=(CHATTY, 0.2 + times * 0.1))
        if is_busy:
            busy.start()
        found = [(run(LOOP, 0.05) - 0.05) * 1e3 for _ in range(times)]
        if is_busy:
            busy.join()
        return found
    finally:
        runtime.close()


def bytes_per_instance(count: int = 200) -> float:
    """Return the resident memory that one more waiting instance takes."""
    engine = _engine(count)
    module = compile_module(engine, ADD.encode(), is_text=True)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    stores = []
    for _ in range(count):
        store = engine.store(Frame(), 1)
        store.limit(64 * MiB, TABLE_ELEMENTS, TABLES)
        store.instantiate(module.pre)
        stores.append(store)
    taken = (resident() - before) / count
    for store in stores:
        store.close()
    return taken


def _engine(executions: int) -> Engine:
    return Engine(executions, Wasi(Deadlines(lambda: None)), "plain")


def _command(*arguments: str) -> Callable[[], None]:
    def call() -> None:
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return call


def _judged(value: float, bar: float, unit: str, *, at_least: bool = False) -> str:
    met = value >= bar if at_least else value <= bar
    return f"{value:.2f} {unit}, bar {bar:g}: {'met' if met else 'MISSED'}"


def main() -> None:
    """Measure and report."""
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        supervisor = stack.enter_context(Supervisor.start())
        made: dict[str, Callable[[], Parts]] = {ENGINE: in_engine, "public wasmtime API, fresh": public_api}
        if importlib.util.find_spec("quickjs") is not None:
            made["quickjs package, fresh context"] = quickjs_package
        contenders: dict[str, Contender] = {name: stack.enter_context(apart(make)) for name, make in made.items()}

        def through_pool() -> None:
            assert supervisor.run(ADD, "wat", inputs=[1, 2]).value == 3

        through_pool()
        contenders[POOL] = timed(through_pool)
        started = programs(Path(folder))
        contenders |= {name: timed(call) for name, call in started.items()}
        bursts = dict.fromkeys(made, 200) | {POOL: 50}
        times = interleave(contenders, rounds=ROUNDS, repeats=dict.fromkeys(started, ROUNDS // 2), bursts=bursts)
        rate = executions_per_core_s(supervisor)
    free, busy = (deadline_overshoot_ms(is_busy=is_busy) for is_busy in (False, True))
    ratio = statistics.median(times["public wasmtime API, fresh"]) / statistics.median(times[ENGINE])
    extra: dict[str, Any] = {
        "public API over ours": _judged(ratio, 5.0, "times", at_least=True),
        "fresh executions in batches": _judged(rate, 2000.0, "per second of a core", at_least=True),
        "deadline overshoot, worst of 20": _judged(max(free), 10.0, "ms"),
        "deadline overshoot beside a busy GIL, worst of 20": _judged(max(busy), 10.0, "ms"),
        "memory of a waiting instance": _judged(bytes_per_instance() / MiB, 1.0, "MiB"),
    }
    rows = summarise(times, ENGINE, {ENGINE: 0.015, POOL: 0.3})
    report("wasm", rows, ENGINE, extra)


if __name__ == "__main__":
    main()
