"""How many fresh sandboxes a second, beside a bare loop that only forks, isolates and accounts?

Run it with ``python -m benchmarks.sandbox_throughput``. Needs root. Both sides
fork from a process with the same packages loaded and keep as many children in
flight; the bare loop's children enter new namespaces and a cgroup and exit.
They take turns, so that the machine's moods hit both alike.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.measure import RESULTS, machine
from runvisor.actors import registry
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

IN_FLIGHT = 4
TURN_S = 5.0
ROUNDS = 5
BAR = 0.6
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Rate:
    """What one side reached over all its turns."""

    name: str
    per_second: float
    cpu_ms: float
    """CPU time per execution, everything counted."""
    parts: dict[str, float]
    """Where it went, in milliseconds per execution."""


def main() -> None:
    """Measure and report."""
    bare = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare_loop", str(IN_FLIGHT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert bare.stdin is not None
    assert bare.stdout is not None
    bare.stdout.readline()
    sides: dict[str, list[Rate]] = {"bare loop": [], "python, science": [], "v8": []}
    runtimes = {"python, science": _start("python"), "v8": _start("v8")}
    jobs = {"python, science": ("python", "native"), "v8": ("javascript", "isolate")}
    try:
        for _ in track(range(ROUNDS), description="measuring"):
            print(TURN_S, file=bare.stdin, flush=True)
            sides["bare loop"].append(Rate("bare loop", **json.loads(bare.stdout.readline())))
            for name, runtime in runtimes.items():
                sides[name].append(_turn(name, runtime, *jobs[name]))
    finally:
        bare.stdin.close()
        bare.wait(30)
        for runtime in runtimes.values():
            runtime.close()
    _report([_middle(rates) for rates in sides.values()])


def _start(name: str) -> JailedRuntime:
    runtime = registry.create(name, PoolSize(minimum=IN_FLIGHT, maximum=4 * IN_FLIGHT))
    assert isinstance(runtime, JailedRuntime)
    runtime.start()
    return runtime


def _turn(name: str, runtime: JailedRuntime, language: str, variant: str) -> Rate:
    task, grant = Task("1 + 1", language), Grant("bench", Trust.UNTRUSTED, Permissions())
    until = time.monotonic() + TURN_S
    counts = [0] * IN_FLIGHT

    def work(number: int) -> None:
        while time.monotonic() < until:
            result = runtime.execute(task, variant, grant, Watch())
            if result.error is not None:
                raise result.error
            counts[number] += 1

    zygote_pid = runtime.zygote_pid
    before, own_before, began = _cpu_s(zygote_pid), _own_cpu_s(), time.monotonic()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(IN_FLIGHT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s, done = time.monotonic() - began, sum(counts)
    after, own_after = _cpu_s(zygote_pid), _own_cpu_s()
    parts = {
        "zygote (forking)": (after[0] - before[0]) / done * 1e3,
        "children (sealing, running, exit)": (after[1] - before[1]) / done * 1e3,
        "pool (conversation, accounting)": (own_after - own_before) / done * 1e3,
    }
    return Rate(name, done / took_s, sum(parts.values()), parts)


def _cpu_s(pid: int) -> tuple[float, float]:
    """Return the CPU time of a process and of its dead children (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
    return own / _TICKS, children / _TICKS


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _middle(rates: list[Rate]) -> Rate:
    return sorted(rates, key=lambda rate: rate.per_second)[len(rates) // 2]


def _report(rates: list[Rate]) -> None:
    base = rates[0].per_second
    table = Table("side", "fresh a second", "of the bare loop", "CPU ms each", "where it goes", "bar")
    for rate in rates:
        share = rate.per_second / base
        table.add_row(
            rate.name,
            f"{rate.per_second:.0f}",
            f"{share:.0%}",
            f"{rate.cpu_ms:.1f}",
            "\n".join(f"{part}: {ms:.1f}" for part, ms in rate.parts.items()),
            "" if rate is rates[0] else f">= {BAR:.0%}: {'met' if share >= BAR else 'MISSED'}",
        )
    console = Console()
    console.print(table)
    spread = statistics.median(rate.cpu_ms for rate in rates)
    document = {"question": "sandbox throughput", **machine(), "in_flight": IN_FLIGHT, "median_cpu_ms": spread}
    document["sides"] = [asdict(rate) for rate in rates]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sandbox-throughput.json").write_text(json.dumps(document, indent=2) + "\n")
    console.print("written to benchmarks/results/sandbox-throughput.json")


if __name__ == "__main__":
    main()
