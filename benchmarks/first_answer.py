"""How long from a job to its result, hardened, beside what people use today?

Run it with ``python -m benchmarks.first_answer``. Needs the ``bench`` extra.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import ray

from benchmarks.measure import Contender, apart, interleave, report, summarise, timed
from runvisor.actors import registry
from runvisor.actors.channel.unix import UnixChannel, UnixServer
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

ROUNDS = 50
RECORDS = 100_000
WAT = '(module (func (export "main") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))'
RECORD = (
    "struct state { u64 n; u64 total; };\n"
    "int on_record(struct record *r, struct state *s) {\n"
    "  if (r->kind != 3 || r->value <= 500000) return 0;\n"
    "  s->n += 1; s->total += r->value; return 1;\n}\n"
)


Parts = tuple[Callable[[], None], Callable[[], None]]
"""A call, and how to end what it needs."""


def job(name: str, code: str, language: str, variant: str, inputs: Any = None, trust: Trust = Trust.UNTRUSTED) -> Parts:
    """Start a runtime; return a call that runs one job, and its close."""
    runtime = registry.create(name, PoolSize(minimum=6, maximum=16))
    runtime.start()
    permissions = Permissions()
    task, grant = Task(code, language, inputs, permissions, trust), Grant("bench", trust, permissions)

    def call() -> None:
        result = runtime.execute(task, variant, grant, Watch())
        if result.error is not None:
            raise result.error

    call()
    return call, runtime.close


def python_job() -> Parts:
    return job("python", "import numpy\n1 + 1", "python", "native")


def v8_job() -> Parts:
    return job("v8", "1 + 1", "javascript", "isolate")


def wasm_job() -> Parts:
    return job("wasm", WAT, "wat", "module", [1, 2])


def ebpf_job() -> Parts:
    records = np.zeros(RECORDS, [("id", "<u4"), ("kind", "<u4"), ("value", "<u8")])
    random = np.random.default_rng(1)
    records["kind"], records["value"] = random.integers(0, 8, RECORDS), random.integers(0, 10**6, RECORDS)
    return job("ebpf", RECORD, "c-record", "record", {"records": records}, Trust.VERIFIED)


def jupyter() -> tuple[Callable[[], None], Callable[[], None]]:
    """Return (run 1+1 in a warm kernel, shut the kernel down)."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")

    def call() -> None:
        client.execute_interactive("1+1", output_hook=void, timeout=30)

    def stop() -> None:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

    call()
    return call, stop


@ray.remote(num_cpus=0)
class Idle:
    """A raw Ray actor that does nothing."""

    def nothing(self) -> None:
        """Return at once."""


def main() -> None:
    """Measure and report."""
    os.environ.update(RAY_worker_niceness="0")  # as the supervisor's own Ray: else its no-op would look slow
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    idle = Idle.remote()
    ray.get(idle.nothing.remote())
    with ExitStack() as stack:
        stack.callback(ray.shutdown)
        server = UnixServer(lambda request, answers, _: answers.send(request), "bench")
        stack.callback(server.close)
        channel = UnixChannel(str(server.path), "bench")
        stack.callback(channel.close)
        kernel, stop_kernel = jupyter()
        stack.callback(stop_kernel)
        jobs = {
            "python, numpy preloaded": stack.enter_context(apart(python_job)),
            "v8 fresh isolate": stack.enter_context(apart(v8_job)),
            "wasm fresh instance": stack.enter_context(apart(wasm_job)),
            "ebpf, 100k records": stack.enter_context(apart(ebpf_job)),
        }
        contenders: dict[str, Contender] = {
            **jobs,
            "raw Ray actor no-op": timed(lambda: ray.get(idle.nothing.remote())),
            "channel round trip": timed(lambda: void(channel.request({"op": "ping"}))),
            "warm Jupyter kernel": timed(kernel),
            "python -c 'import numpy'": timed(
                lambda: void(subprocess.run([sys.executable, "-c", "import numpy"], check=True))
            ),
        }
        times = interleave(
            contenders,
            rounds=ROUNDS,
            # Each begins when the pools have refilled from the one before: refilling takes a core.
            pauses_s=dict.fromkeys(jobs, 0.35) | {"raw Ray actor no-op": 0.35},
            repeats={"python -c 'import numpy'": 20},
            # Single-use processes come in bursts that the warm pool holds; the others in longer ones,
            # since a call after a pause mostly times the machine's waking up.
            bursts={
                "python, numpy preloaded": 3,
                "v8 fresh isolate": 3,
                "wasm fresh instance": 200,
                "ebpf, 100k records": 20,
                "raw Ray actor no-op": 20,
                "channel round trip": 200,
                "warm Jupyter kernel": 3,
            },
        )
    bars = {
        "python, numpy preloaded": 2.0,
        "v8 fresh isolate": 2.0,
        "wasm fresh instance": 0.1,
        "ebpf, 100k records": 5e-6 * RECORDS,
    }
    rows = summarise(times, "raw Ray actor no-op", bars)
    median = {row.name: row.median_ms for row in rows}
    report(
        "first answer",
        rows,
        "raw Ray actor no-op",
        {
            "eBPF ns per record": round(median["ebpf, 100k records"] * 1e6 / RECORDS, 2),
            "channel over raw Ray no-op": round(median["channel round trip"] / median["raw Ray actor no-op"], 3),
            "python over python -c 'import numpy'": round(
                median["python, numpy preloaded"] / median["python -c 'import numpy'"], 4
            ),
            "python over warm Jupyter kernel": round(
                median["python, numpy preloaded"] / median["warm Jupyter kernel"], 3
            ),
        },
    )


def void(value: object) -> None:
    """Drop a value, so that contenders return nothing."""
    del value


if __name__ == "__main__":
    main()
