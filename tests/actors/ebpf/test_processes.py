"""Executors: their privileges, their principals, their deaths, and what is left of them in the kernel."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runvisor.actors.ebpf import loaded
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.errors import (
    Cancelled,
    GuestSyntaxError,
    MemoryLimitExceeded,
    PoolExhausted,
    SpawnFailed,
    TimeLimitExceeded,
    WorkerCrashed,
)
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from tests.stopping import stop

pytestmark = [pytest.mark.kernel, pytest.mark.root]

EVENT = np.dtype([("id", "<u4"), ("kind", "<u4"), ("value", "<u8")])
Ask = Callable[..., Result]
GRANT = Grant("alice", Trust.VERIFIED, Permissions())


def function(body: str, state: str = "u64 total;") -> str:
    return f"struct state {{ {state} }};\nint on_record(struct record *r, struct state *s)\n{{\n{body}\nreturn 0;\n}}\n"


GOOD = function("s->total += r->value; return 1;")
SLOW = function("#pragma unroll\nfor (int i = 0; i < 2000; i++) s->total = (s->total ^ i) * 31 + r->value;")


def held_by(pid: int | str) -> tuple[int, int]:
    """Return how many maps and how many programs a process holds; others use bpf(2) on this machine too."""
    names = [link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return names.count("anon_inode:bpf-map"), names.count("anon_inode:bpf-prog")


def wait_until(holds: Callable[[], bool], limit_s: float = 5.0) -> bool:
    """Ask again until it holds: the kernel frees maps and programs a moment later."""
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


def pids(runtime: EbpfRuntime, principal: str = "alice") -> list[int]:
    return [kept.executor.pid for kept in runtime._tiers["bpf+perfmon"]._kept if kept.principal == principal]


def test_the_deadline_ends_a_run_between_two_chunks_and_the_executor_lives(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(SLOW, np.ones(1, EVENT)).unwrap()
    before = pids(runtime)
    began = time.monotonic()
    result = ask(SLOW, np.ones(2_000_000, EVENT), timeout_s=0.2)
    assert isinstance(result.error, TimeLimitExceeded)
    assert time.monotonic() - began < 10
    assert pids(runtime) == before
    assert ask(GOOD, np.ones(3, EVENT)).unwrap()["state"] == {"total": 3}, "no answer to a later part is left over"


def test_an_executor_that_stays_silent_is_killed_at_the_deadline(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(GOOD).unwrap()
    (pid,) = pids(runtime)
    stop(pid)
    began = time.monotonic()
    assert isinstance(ask(GOOD, timeout_s=0.1).error, TimeLimitExceeded)
    assert time.monotonic() - began < 10
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert ask(GOOD, np.ones(3, EVENT)).unwrap()["state"] == {"total": 3}


def test_an_executor_out_of_memory_is_the_tasks_error_and_is_replaced(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(GOOD).unwrap()
    (kept,) = runtime._tiers["bpf+perfmon"]._kept
    kept.executor._child.limit_memory(0)
    source = function("s->xs[r->id & 1023] = 1;", "u64 xs[4194304];")
    assert isinstance(ask(source, output_bytes=64 * MiB).error, MemoryLimitExceeded | GuestSyntaxError)
    assert ask(GOOD).ok


def capabilities(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("CapEff")]
    return int(line.split()[1], 16)


def test_executors_hold_the_capabilities_of_their_tier_and_no_other(runtime: EbpfRuntime, ask: Ask) -> None:
    for trust, tier, mask in (
        (Trust.VERIFIED, "bpf+perfmon", 1 << 39 | 1 << 38),
        (Trust.UNTRUSTED, "bpf", 1 << 39),
    ):
        ask(GOOD, trust=trust).unwrap()
        for kept in runtime._tiers[tier]._kept:  # type: ignore[index]
            assert capabilities(kept.executor.pid) == mask
            status = Path(f"/proc/{kept.executor.pid}/status").read_text()
            assert "Seccomp:\t2" in status
            assert "NoNewPrivs:\t1" in status
            assert "Uid:\t0" not in status


def test_record_programs_are_socket_filters_and_nothing_else(runtime: EbpfRuntime, ask: Ask) -> None:
    kinds: set[str] = set()
    for trust, tier in ((Trust.VERIFIED, "bpf+perfmon"), (Trust.UNTRUSTED, "bpf")):
        ask(GOOD, trust=trust, principal="typed").unwrap()
        for kept in runtime._tiers[tier]._kept:  # type: ignore[index]
            for path in Path(f"/proc/{kept.executor.pid}/fdinfo").iterdir() if kept.principal == "typed" else ():
                kinds.update(line for line in path.read_text().splitlines() if line.startswith("prog_type"))
    assert kinds == {"prog_type:\t1"}


def test_no_executor_serves_two_principals(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    served: dict[int, set[str]] = {}
    for principal in ("alice", "bob", "carol", "alice", "bob", "dave"):
        ask(GOOD, principal=principal).unwrap()
        for kept in runtime._tiers["bpf+perfmon"]._kept:
            served.setdefault(kept.executor.pid, set()).add(kept.principal)
    assert all(len(principals) == 1 for principals in served.values())
    assert len(served) >= 4, "two at most live at once, so some have ended for others"


def test_a_busy_pool_says_so(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    tier = runtime._tiers["bpf+perfmon"]
    with tier.lend("alice"), tier.lend("bob"):
        assert runtime.load().busy == 2
        with pytest.raises(PoolExhausted) as caught:
            ask(GOOD, principal="carol")
        assert caught.value.details["retry_after_s"] > 0
    assert ask(GOOD, principal="carol").ok
    assert runtime.load().busy == 0


def test_a_caller_who_is_called_off_waits_no_longer(runtime: EbpfRuntime) -> None:
    del runtime  # the shared one has found out that the kernel can
    full = EbpfRuntime(PoolSize(minimum=1, maximum=1, wait_s=600.0))
    full.start()
    try:
        task = Task(GOOD, "c-record", {"records": np.zeros(2, EVENT)})
        results: list[Result] = []
        watch = Watch()

        def run() -> None:
            grant = Grant("carol", Trust.VERIFIED, Permissions())
            results.append(full.execute(task, "record", grant, watch))

        with full._tiers["bpf+perfmon"].lend("alice"):
            thread = threading.Thread(target=run)
            thread.start()
            assert wait_until(lambda: full.load().waiting == 1, 20)
            watch.cancellation.cancel()
            thread.join(20)
        assert isinstance(results[0].error, Cancelled)
        assert full.load().busy == 0
    finally:
        full.close()


def test_an_executor_that_died_while_idle_is_replaced_unseen(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(GOOD).unwrap()
    (pid,) = pids(runtime)
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)
    assert ask(GOOD, np.ones(2, EVENT)).unwrap()["state"] == {"total": 2}


def test_an_executor_that_dies_in_a_task_is_a_crash_that_had_started(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(GOOD).unwrap()
    task = Task(GOOD, "c-record", {"records": np.zeros(2, EVENT)})
    with pytest.raises(WorkerCrashed) as caught:
        runtime.execute(task, "record", GRANT, Watch(lambda: os.kill(pids(runtime)[0], signal.SIGKILL)))
    assert caught.value.details == {"started": True}
    assert ask(GOOD).ok


def test_executions_leave_no_map_and_no_program_beyond_the_loaded_ones(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(GOOD).unwrap()
    (pid,) = pids(runtime)
    mine = held_by("self")
    assert held_by(pid) == (2, 1)
    for number in range(8):
        ask(GOOD, np.ones(number * 20_000, EVENT)).unwrap()
        assert not ask(function("s->total = r[1].value;")).ok
        assert not ask(function("s->xs[0] = 1;", "u64 xs[70000000];"), memory_bytes=1 << 40).ok
    assert (held_by(pid), held_by("self")) == ((2, 1), mine)


def test_an_executor_keeps_a_bounded_number_of_programs(
    own: tuple[EbpfRuntime, Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "_MOST_PROGRAMS", 4)
    runtime, ask = own
    before = held_by("self")[0]
    for number in range(7):
        ask(function(f"s->total += {number};")).unwrap()
    assert held_by(pids(runtime)[0]) == (8, 4)
    assert held_by("self")[0] == before + 4


def test_closing_leaves_no_process_and_nothing_in_the_kernel(
    runtime: EbpfRuntime, asker: Callable[[EbpfRuntime], Ask]
) -> None:
    before = held_by("self")
    mine = EbpfRuntime(PoolSize(minimum=1, maximum=2))
    mine.start()
    ask = asker(mine)
    ask(GOOD).unwrap()
    ask(GOOD, trust=Trust.UNTRUSTED).unwrap()
    alive = pids(mine)
    mine.close()
    mine.close()
    assert all(wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists()) for pid in alive)
    assert held_by("self") == before
    with pytest.raises(SpawnFailed):
        ask(GOOD)
