"""Nothing of an execution stays in the kernel: neither after many, nor after a process was killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import PoolSize
from runvisor.policies.errors import GuestError, TimeLimitExceeded
from runvisor.policies.result import Result
from runvisor.policies.trust import Trust
from tests.actors.ebpf import kernel_objects
from tests.actors.ebpf.kernel_objects import Object

pytestmark = [pytest.mark.kernel, pytest.mark.root]

EVENT = np.dtype([("id", "<u4"), ("kind", "<u4"), ("value", "<u8")])
Ask = Callable[..., Result]
POOL = """
import sys
import numpy as np
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

runtime = EbpfRuntime(PoolSize(minimum=1, maximum=2))
runtime.start()
task = Task(sys.argv[1], "c-record", {"records": np.zeros(9, "<u8")})
runtime.execute(task, "record", Grant("alice", Trust.VERIFIED, Permissions()), Watch()).unwrap()
print("ready", flush=True)
sys.stdin.read()
"""


def function(body: str) -> str:
    return (
        f"struct state {{ u64 total; }};\nint on_record(struct record *r, struct state *s)\n{{\n{body}\nreturn 0;\n}}\n"
    )


GOOD = [function(f"s->total += r->value + {number}; return 1;") for number in range(6)]
REFUSED = function("s->total = r[1].value;")
LATE = function("#pragma unroll\nfor (int i = 0; i < 300; i++) s->total = (s->total ^ i) * 31 + r->value;")


def left_over(before: set[Object]) -> set[Object]:
    """Return what is ours, was not there before, and is held by no process but this one and its children."""
    return kernel_objects.ours() - before - kernel_objects.held_by_others({os.getpid()})


def is_gone(found: Callable[[], set[Object]], limit_s: float = 30.0) -> bool:
    """Ask again until nothing is found: the kernel frees objects a moment after their last reference."""
    deadline = time.monotonic() + limit_s
    while found():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


def churn(ask: Ask, executions: int) -> None:
    """Run programs that load, stay, grow, are refused, are late, and make room for each other."""
    endings: set[type] = set()
    for number in range(executions):
        principal = f"principal-{number // 40 % 4}"
        trust = Trust.UNTRUSTED if number % 7 == 0 else Trust.VERIFIED
        if number % 50 == 49:
            result = ask(LATE, np.zeros(400_000, EVENT), principal=principal, timeout_s=0.05)
        elif number % 10 == 9:
            result = ask(REFUSED, principal=principal, trust=trust)
        else:
            records = np.zeros(100_000 if number % 25 == 0 else 20, EVENT)
            result = ask(GOOD[number % len(GOOD)], records, principal=principal, trust=trust)
            assert result.ok
        endings.add(type(result.error))
    assert endings >= {type(None), TimeLimitExceeded}
    assert any(issubclass(ending, GuestError) for ending in endings)


def check_churn(asker: Callable[[EbpfRuntime], Ask], executions: int) -> None:
    before = kernel_objects.ours()
    mine = EbpfRuntime(PoolSize(minimum=1, maximum=2))
    try:
        mine.start()
        churn(asker(mine), executions)
        assert left_over(before), "what is looked for can be found"
    finally:
        mine.close()
    assert is_gone(lambda: left_over(before))


def test_nothing_stays_in_the_kernel_after_some_hundred_executions(
    runtime: EbpfRuntime, asker: Callable[[EbpfRuntime], Ask]
) -> None:
    del runtime  # it has found out that the kernel can
    check_churn(asker, 200)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_stays_in_the_kernel_after_ten_thousand_executions(
    runtime: EbpfRuntime, asker: Callable[[EbpfRuntime], Ask]
) -> None:
    del runtime
    check_churn(asker, 10_000)


def test_nothing_stays_in_the_kernel_when_an_executor_is_killed(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(GOOD[0]).unwrap()
    (kept,) = runtime._tiers["bpf+perfmon"]._kept
    held = kernel_objects.held_by(kept.executor.pid)
    assert {kind for kind, _ in held} == {"map", "prog"}
    pidfd = os.pidfd_open(kept.executor.pid)
    os.kill(kept.executor.pid, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)
    assert ask(GOOD[0]).ok, "another takes its place, and this side lets go of the dead one's maps"
    assert is_gone(lambda: held & kernel_objects.ours())


def test_nothing_stays_in_the_kernel_when_the_pool_is_killed(runtime: EbpfRuntime) -> None:
    del runtime
    pool = subprocess.Popen(
        [sys.executable, "-c", POOL, GOOD[0]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert pool.stdout is not None
        assert pool.stdout.readline() == "ready\n"
        held: set[Object] = set()
        for pid in kernel_objects.descendants(pool.pid):
            held |= kernel_objects.held_by(pid)
        assert {kind for kind, _ in held} == {"map", "prog"}
    finally:
        pool.kill()
        pool.communicate()
    assert is_gone(lambda: held & kernel_objects.ours())
