"""What it costs the rest of the machine, and the target, to be observed.

A child makes system calls that do nearly nothing (through ctypes)
while nobody looks on, while another process is observed, and while it is itself: by what
is built in, and by programs that count at a tracepoint and at the function that it calls.
Its CPU time is what is counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.observations import BUILT_INS, PROGRAM, ObservationRequest

ROUNDS = 30
COUNT = "struct value { u64 times; };\nvoid on_event(struct event *e, struct value *v) { v->times++; }\n"
PLACES = ("raw_tracepoint: sys_enter", "tracepoint: raw_syscalls:sys_enter", "uprobe: libc:getppid")
PLACES += ("uretprobe: libc:getppid",)
CHILD = """
import ctypes, sys, time
libc = ctypes.CDLL(None)
calls = 20000
call = libc.getppid
for line in sys.stdin:
    began = time.process_time()
    for _ in range(calls): call()
    print((time.process_time() - began) / calls * 1e9, flush=True)
"""


@contextmanager
def observed(runtime: EbpfRuntime, what: str, pid: int, *, follow: bool = True) -> Iterator[None]:
    """Keep a process observed while the block runs."""
    begun, cancellation = threading.Event(), Cancellation()
    program = None if what in BUILT_INS else f"// {what}\n{COUNT}"
    request = ObservationRequest(what if program is None else PROGRAM, pid, 600.0, follow, program)
    thread = threading.Thread(target=runtime.observe, args=(request, Watch(begun.set, cancellation=cancellation)))
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        cancellation.cancel()
        thread.join()


def main() -> None:
    """Print nanoseconds per system call, median and p99 of all rounds, and the ratio to nobody looking on."""
    runtime = EbpfRuntime(PoolSize(minimum=0, maximum=1))
    runtime.start()
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    other = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    found: dict[str, list[float]] = {}

    def measure(name: str) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        found.setdefault(name, []).append(float(child.stdout.readline()))

    try:
        for _ in range(ROUNDS):
            measure("nobody looks on")
            for what in (*BUILT_INS, *PLACES):
                with observed(runtime, what, other.pid):
                    measure(f"{what} of another process")
                with observed(runtime, what, child.pid):
                    measure(f"{what} of this process")
            with observed(runtime, PLACES[2], other.pid, follow=False):
                measure(f"{PLACES[2]} of another process alone")
    finally:
        child.kill()
        other.kill()
        runtime.close()
    alone = statistics.median(found["nobody looks on"])
    rows = {
        name: {
            "median_ns": round(statistics.median(times), 1),
            "p99_ns": round(sorted(times)[int(len(times) * 0.99)], 1),
            "ratio": round(statistics.median(times) / alone, 2),
        }
        for name, times in found.items()
    }
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
