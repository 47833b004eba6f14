"""Does anything grow with the number of executions? Counts, and the pool's own memory, must stay flat.

Run it with ``python -m benchmarks.soak [EXECUTIONS]`` (default 50,000). Exit
code 1 when something has grown. Needs root. Every hundredth task ends badly
(it crashes, or runs into a limit), and every tenth uses /in and /out.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.measure import RESULTS, machine
from runvisor.actors.jail import cgroups
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.jail.uids import UIDS
from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.v8.runtime import V8Runtime
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

EXECUTIONS = 50_000
STOPS = 10
_PAGE = os.sysconf("SC_PAGE_SIZE")
_WORKERS = 4
_GROWTH_BYTES = 16 * MiB


@dataclass(frozen=True)
class Count:
    """What there is at one moment, when no task runs."""

    executions: int
    descriptors: int
    threads: int
    zygote_descriptors: int
    cgroups: int
    mounts: int
    uids: int
    tmp_entries: int
    rss_mib: float
    zygote_rss_mib: float


def main() -> int:
    """Run, count, report."""
    total = int(sys.argv[1]) if len(sys.argv) > 1 else EXECUTIONS
    runtimes: list[tuple[JailedRuntime, str, str]] = [
        (PythonRuntime(PoolSize(4, 8), "bare"), "python", "native"),
        (V8Runtime(PoolSize(4, 8)), "javascript", "isolate"),
    ]
    for runtime, _, _ in runtimes:
        runtime.start()
    counts: list[Count] = []
    try:
        with Progress() as progress, ThreadPoolExecutor(_WORKERS) as workers:
            bar = progress.add_task("executions", total=total)
            numbers = count()
            lock = threading.Lock()

            def one(_: int) -> None:
                with lock:
                    number = next(numbers)
                _execute(number, *runtimes[number % len(runtimes)])
                progress.advance(bar)

            for stop in range(STOPS + 1):
                if stop:
                    list(workers.map(one, range(total // STOPS)))
                _settle(runtimes)
                counts.append(_count(stop * (total // STOPS), runtimes))
    finally:
        for runtime, _, _ in runtimes:
            runtime.close()
    return _report(counts)


def _execute(number: int, runtime: JailedRuntime, language: str, variant: str) -> None:
    permissions = Permissions(timeout_s=0.5)
    code, files = "1 + 1", {}
    if number % 100 in (0, 1):
        code = "while True: pass" if language == "python" else "while (true) {}"
    elif number % 10 in (2, 3) and language == "python":
        code, files = "open('/out/copy', 'w').write(open('/in/data').read())", {"data": b"x" * 1000}
    task = Task(code, language, permissions=permissions, files=files)
    runtime.execute(task, variant, Grant("soak", Trust.UNTRUSTED, permissions), Watch())


def _settle(runtimes: list[tuple[JailedRuntime, str, str]]) -> None:
    """Wait until the pools are whole and nothing is being buried."""
    done = threading.Event()
    for _ in range(200):
        if all(runtime.load().busy == 0 and runtime.load().idle >= 4 for runtime, _, _ in runtimes):
            break
        done.wait(0.05)
    done.wait(0.5)


def _count(executions: int, runtimes: list[tuple[JailedRuntime, str, str]]) -> Count:
    zygotes = [runtime.zygote_pid for runtime, _, _ in runtimes]
    groups = list(cgroups.find_hierarchy().parent.glob(f"runvisor-{os.getpid()}-*"))
    return Count(
        executions,
        _entries("/proc/self/fd"),
        threading.active_count(),
        sum(_entries(f"/proc/{pid}/fd") for pid in zygotes),
        sum(1 for group in groups for entry in group.iterdir() if entry.is_dir()),
        len(Path("/proc/self/mounts").read_text().splitlines())
        + sum(len(Path(f"/proc/{pid}/mounts").read_text().splitlines()) for pid in zygotes),
        len(UIDS._used),
        _entries(tempfile.gettempdir()),
        _rss_mib(os.getpid()),
        sum(map(_rss_mib, zygotes)),
    )


def _entries(folder: str) -> int:
    return len(list(Path(folder).iterdir()))


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / MiB


def _report(counts: list[Count]) -> int:
    table = Table(*(name.replace("_", " ") for name in asdict(counts[0])), title="soak")
    for row in counts:
        table.add_row(*(f"{value:.1f}" if isinstance(value, float) else str(value) for value in asdict(row).values()))
    console = Console()
    console.print(table)
    # The first stop is past the warming up; every later one is held against it.
    first, last = asdict(counts[1]), asdict(counts[-1])
    limits = {"rss_mib": _GROWTH_BYTES / MiB, "zygote_rss_mib": _GROWTH_BYTES / MiB, "cgroups": 4, "uids": 4}
    grown = [name for name in first if name != "executions" and last[name] - first[name] > limits.get(name, 2)]
    console.print(f"[red]grown: {', '.join(grown)}" if grown else "[green]flat")
    RESULTS.mkdir(exist_ok=True)
    document = {"question": "soak", **machine(), "counts": [asdict(row) for row in counts], "grown": grown}
    (RESULTS / "soak.json").write_text(json.dumps(document, indent=2) + "\n")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
