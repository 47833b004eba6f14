"""What does it cost that the kernel counts: per system call, for those it counts and for all others, and per execution?

Run it with ``python -m benchmarks.witness [rounds]`` as root. Each round times the
same loop with nothing loaded; with a program at the same tracepoint that does nothing,
which is the least that any such counting can cost; and with those that count: in a
process that is not registered, as all others of the machine are, and in one that is. The
loop is machine code that calls getppid(2), so that nothing but the kernel is timed,
in CPU time of its thread; what else runs on the machine still slows it by a third, so what
is said of a system call is the least of each round's samples, and the median of these.
"""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from rich.progress import track

from benchmarks.measure import Contender, apart, interleave, report, summarise
from runvisor.actors.ebpf import bpf
from runvisor.actors.ebpf.attach import attach_raw_tracepoint
from runvisor.actors.jail.unified import unified_parent
from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.witness.accounts import Accounts
from runvisor.actors.witness.counting import Witnessing
from runvisor.actors.witness.witness import Witness
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

ROUNDS: Final = 9
BURST: Final = 200
CALLS: Final = 2_000
BAR_NS: Final = 150.0
SETTLED_S: Final = 0.5
_LOOP: Final = bytes.fromhex("53 4889fb b86e000000 0f05 48ffcb 75f4 5b c3")
"""push rbx; mov rbx, rdi; again: mov eax, 110; syscall; dec rbx; jnz again; pop rbx; ret."""

_NOTHING: Final = bytes.fromhex("b700000000000000 9500000000000000")
"""r0 = 0; exit."""
OFF = f"{CALLS:,} system calls, nothing loaded"
EMPTY = f"{CALLS:,} system calls, an empty program"
UNWATCHED = f"{CALLS:,} system calls, on, process not counted"
WATCHED = f"{CALLS:,} system calls, on, process counted"


def main() -> None:
    """Measure both, and print what they say."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    _system_calls(rounds)
    _executions(rounds)


def _system_calls(rounds: int) -> None:
    times: dict[str, list[float]] = {OFF: [], EMPTY: [], UNWATCHED: [], WATCHED: []}
    starts: list[float] = []
    least: dict[str, list[float]] = {name: [] for name in times}

    def sample(name: str, caller: Contender) -> None:
        block = caller(BURST)
        times[name] += block
        least[name].append(min(block))

    with _caller() as (elsewhere, _), _caller(own_group=True) as (inside, identity):
        for _ in track(range(rounds), description="measuring"):
            sample(OFF, elsewhere)
            with _empty_program():
                sample(EMPTY, elsewhere)
            began = time.perf_counter()
            witness = Witness()
            witness.start()
            starts.append(time.perf_counter() - began)
            accounts = Accounts.connect(witness.path, 2)
            account = accounts.open(identity)
            sample(UNWATCHED, elsewhere)
            sample(WATCHED, inside)
            account.close()
            accounts.close()
            witness.close()
            time.sleep(SETTLED_S)
    rows = summarise(times, OFF)
    off, empty, unwatched, watched = (statistics.median(each) / CALLS * 1e9 for each in least.values())
    met = "met" if watched - off <= BAR_NS else "MISSED"
    extra = {
        "a system call, nothing loaded": f"{off:.0f} ns",
        "more for a program that does nothing, where they end": f"{empty - off:+.0f} ns",
        "more for every process of the machine": f"{unwatched - off:+.0f} ns",
        "more for one that is counted": f"{watched - off:+.0f} ns (bar <= {BAR_NS:g} ns: {met})",
        "to start counting, compiled before": f"{statistics.median(starts[1:] or starts) * 1e3:.0f} ms",
    }
    report("what counting costs a system call", rows, OFF, extra)


@contextmanager
def _empty_program() -> Iterator[None]:
    program = bpf.load_program(_NOTHING, bpf.ProgramType.RAW_TRACEPOINT)
    link = attach_raw_tracepoint(program, "sys_exit")
    os.close(program)
    try:
        yield
    finally:
        os.close(link)


def _executions(rounds: int) -> None:
    witness = Witness()
    witness.start()
    accounts = Accounts.connect(witness.path, 64)

    def account_only(count: int) -> list[float]:
        times = []
        for number in range(count):
            began = time.perf_counter()
            account = accounts.open(number + 1)
            account.usage()
            account.close()
            times.append(time.perf_counter() - began)
        return times

    plain, counted = "python 1 + 1, not counted", "python 1 + 1, counted"
    own = "an account alone: register, read, strike off"
    try:
        with apart(_plain) as without, apart_counted(witness.path) as with_counts:
            times = interleave(
                {plain: without, counted: with_counts, own: account_only},
                rounds=rounds * 10,
                pauses_s={plain: 0.05, counted: 0.05, own: 0.05},
                bursts={plain: 2, counted: 2, own: 10},
            )
    finally:
        accounts.close()
        witness.close()
    report("what counting costs an execution", summarise(times, plain), plain)


def _plain() -> tuple[Callable[[], None], Callable[[], None]]:
    return _python("")


def _counted() -> tuple[Callable[[], None], Callable[[], None]]:
    return _python(os.environ["RUNVISOR_BENCH_WITNESS"])


@contextmanager
def apart_counted(path: str) -> Iterator[Contender]:
    """Time counted executions in a process of their own, which finds the witness by its environment."""
    os.environ["RUNVISOR_BENCH_WITNESS"] = path
    try:
        with apart(_counted) as contender:
            yield contender
    finally:
        del os.environ["RUNVISOR_BENCH_WITNESS"]


def _python(path: str) -> tuple[Callable[[], None], Callable[[], None]]:
    runtime = PythonRuntime(PoolSize(minimum=4, maximum=8), "bare")
    if path:
        runtime.witness = Witnessing.connect(path, 16)
    runtime.start()
    permissions = Permissions()
    grant = Grant("bench", Trust.UNTRUSTED, permissions)
    task = Task("1 + 1", "python", None, permissions, Trust.UNTRUSTED)

    def call() -> None:
        result = runtime.execute(task, "native", grant, Watch())
        assert result.value == 2
        assert bool(result.usage.kernel) == bool(path), result.isolation.witness

    def end() -> None:
        runtime.close()
        runtime.witness.close()

    return call, end


@contextmanager
def _caller(*, own_group: bool = False) -> Iterator[tuple[Contender, int]]:
    """Run the loop in a process of its own, in a cgroup of its own if it is to be counted; give the group's id."""
    parent = unified_parent()
    assert parent is not None, "there is no cgroup v2 hierarchy"
    group = parent / f"runvisor-{os.getpid()}-0-bench" if own_group else None
    if group is not None:
        group.mkdir()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, group))
    process.start()
    assert ours.recv() == "ready"

    def sample(count: int) -> list[float]:
        ours.send(count)
        times: list[float] = ours.recv()
        return times

    try:
        yield sample, group.stat().st_ino if group is not None else 0
    finally:
        ours.send(None)
        process.join(30)
        if group is not None:
            group.rmdir()


def _serve(pipe: Connection, group: Path | None) -> None:
    if group is not None:
        (group / "cgroup.procs").write_text("0")
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(_LOOP)
    first = ctypes.c_char.from_buffer(memory)
    loop = ctypes.CFUNCTYPE(None, ctypes.c_ulong)(ctypes.addressof(first))
    loop(CALLS)
    pipe.send("ready")
    while (count := pipe.recv()) is not None:
        times = []
        for _ in range(count):
            began = time.thread_time()
            loop(CALLS)
            times.append(time.thread_time() - began)
        pipe.send(times)


if __name__ == "__main__":
    main()
