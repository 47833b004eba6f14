"""Observations as a pool runs them: how they end, what their process may do, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.ebpf.compiler import Compiler
from runvisor.actors.ebpf.observe import observers, process, targets
from runvisor.actors.ebpf.observe.targets import threads_of
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.process_birth import process_birth
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.errors import ConfigError, PoolExhausted, RunvisorError, SpawnFailed, WorkerCrashed
from runvisor.policies.observations import ObservationRequest, ObservedTable
from tests.actors.ebpf.observe.breakpoints import has_breakpoint
from tests.actors.ebpf.observe.known import (
    LONG_S,
    attached_by,
    executors,
    go,
    is_loaded,
    known_process,
    row_of,
    wait_until,
)

pytestmark = [pytest.mark.kernel, pytest.mark.root]

IDLE = "sys.stdin.readline()"


@pytest.fixture
def idle() -> Iterator[int]:
    """A process that waits."""
    with known_process(IDLE) as process:
        yield process.pid


class Observing:
    """An observation in a thread of its own, begun."""

    def __init__(self, runtime: EbpfRuntime, pid: int) -> None:
        self.cancellation = Cancellation()
        self.outcome: ObservedTable | RunvisorError | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(runtime, pid))
        self._thread.start()
        assert self._begun.wait(LONG_S), self.outcome

    def end(self) -> ObservedTable | RunvisorError | None:
        self._thread.join(LONG_S)
        return self.outcome

    def _run(self, runtime: EbpfRuntime, pid: int) -> None:
        try:
            request = ObservationRequest("syscalls", pid, LONG_S)
            self.outcome = runtime.observe(request, Watch(self._begun.set, cancellation=self.cancellation))
        except RunvisorError as error:
            self.outcome = error


@pytest.fixture
def observing(runtime: EbpfRuntime, idle: int) -> Iterator[Callable[[], Observing]]:
    """Begin observations of an idle process, and end them after the test."""
    begun: list[Observing] = []

    def begin() -> Observing:
        begun.append(Observing(runtime, idle))
        return begun[-1]

    yield begin
    for each in begun:
        each.cancellation.cancel()
        each.end()


def test_it_lasts_as_long_as_it_was_to(runtime: EbpfRuntime, idle: int) -> None:
    table = runtime.observe(ObservationRequest("syscalls", idle, 0.2), Watch())
    assert (table.ended, table.duration_s) == ("time", pytest.approx(0.2))


def test_one_that_is_called_off_gives_what_it_saw(observing: Callable[[], Observing], idle: int) -> None:
    one = observing()
    one.cancellation.cancel()
    table = one.end()
    assert isinstance(table, ObservedTable)
    assert table.ended == "stopped"
    assert table.duration_s < LONG_S


def test_its_process_may_load_programs_and_nothing_else(observing: Callable[[], Observing]) -> None:
    observing()
    (pid,) = executors()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    perfmon_and_bpf = 1 << 38 | 1 << 39
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert int(status[name], 16) == perfmon_and_bpf
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert "0" not in status["Uid"].split()
    mine = Path("/proc/self/ns")
    for kind in ("pid", "mnt", "net", "ipc", "uts"):
        assert (mine / kind).readlink() != Path(f"/proc/{pid}/ns/{kind}").readlink()


@pytest.mark.parametrize("kept", [set(), {"CAP_BPF"}, {"CAP_PERFMON"}])
def test_each_of_its_capabilities_is_needed(kept: set[str], idle: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers, "CAPABILITIES", frozenset(kept))
    compiler = Compiler(PoolSize(minimum=0, maximum=1))
    mine = observers.Observers(compiler)
    try:
        compiler.start()
        with pytest.raises(SpawnFailed, match=r"needs CAP_BPF, CAP_PERFMON"):
            mine.observe(ObservationRequest("sched", idle, 0.2), Cancellation(), lambda: None)
    finally:
        mine.close()
        compiler.close()


def test_nothing_is_left_in_the_kernel_when_it_has_ended(observing: Callable[[], Observing]) -> None:
    one = observing()
    (pid,) = executors()
    programs = attached_by(pid)
    assert len(programs) == 5
    assert all(map(is_loaded, programs))
    one.cancellation.cancel()
    one.end()
    assert wait_until(lambda: not any(map(is_loaded, programs)))
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_killed_process_takes_its_programs_along_and_others_go_on(
    observing: Callable[[], Observing], runtime: EbpfRuntime, idle: int
) -> None:
    one = observing()
    (pid,) = executors()
    programs = attached_by(pid)
    os.kill(pid, signal.SIGKILL)
    assert isinstance(one.end(), WorkerCrashed)
    assert wait_until(lambda: not any(map(is_loaded, programs)))
    assert runtime.observe(ObservationRequest("io", idle, 0.05), Watch()).ended == "time"


POOL = """
import sys
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.observations import ObservationRequest
runtime = EbpfRuntime(PoolSize(minimum=0, maximum=1))
runtime.start()
request = ObservationRequest(sys.argv[2], int(sys.argv[1]), 60.0, program=sys.argv[3] or None)
runtime.observe(request, Watch(lambda: print("begun", flush=True)))
"""
AT_FUNCTION = """// uprobe: libc:labs
struct value { u64 times; };
void on_event(struct event *e, struct value *v) { v->times++; }
"""


@pytest.mark.parametrize(("what", "program"), [("syscalls", ""), ("program", AT_FUNCTION)])
def test_the_death_of_the_pool_ends_its_observations(idle: int, what: str, program: str) -> None:
    command = [sys.executable, "-c", POOL, str(idle), what, program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pool:
        try:
            assert pool.stdout is not None
            assert pool.stdout.readline() == "begun\n"
            (pid,) = executors(pool.pid)
            programs = attached_by(pid)
            assert programs
            assert has_breakpoint(idle) == bool(program)
        finally:
            pool.kill()
    assert wait_until(lambda: not any(map(is_loaded, programs)))
    assert wait_until(lambda: not has_breakpoint(idle))
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_process_that_stops_answering_is_killed_after_its_time(
    runtime: EbpfRuntime, idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_GRACE_S", 0.2)
    stopped: list[int] = []

    def stop() -> None:
        stopped.extend(executors())
        os.kill(stopped[0], signal.SIGSTOP)

    with pytest.raises(WorkerCrashed, match="nothing in time"):
        runtime.observe(ObservationRequest("syscalls", idle, 1.5), Watch(stop))
    assert wait_until(lambda: not Path(f"/proc/{stopped[0]}").exists())


def test_events_after_its_time_do_not_count_even_if_it_is_not_detached(runtime: EbpfRuntime) -> None:
    with known_process("import time\nwhile True: time.sleep(0.005)") as busy:
        go(busy)

        def hold() -> None:
            (pid,) = executors()
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(2.5, os.kill, (pid, signal.SIGCONT)).start()

        began = time.monotonic()
        table = runtime.observe(ObservationRequest("syscalls", busy.pid, 1.5), Watch(hold))
        assert time.monotonic() - began > 2.4, "it was attached far beyond its time"
    asleep = float(row_of(table, syscall="clock_nanosleep")["total_s"])
    assert 0 < asleep <= 1.5


def test_as_many_run_at_once_as_may_and_no_more(
    observing: Callable[[], Observing], runtime: EbpfRuntime, idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observers, "_MAX_OBSERVERS", 2)
    observing()
    last = observing()
    with pytest.raises(PoolExhausted):
        runtime.observe(ObservationRequest("syscalls", idle, 0.1), Watch())
    last.cancellation.cancel()
    last.end()
    assert runtime.observe(ObservationRequest("syscalls", idle, 0.1), Watch()).ended == "time"


def test_one_principal_does_not_hold_all(
    observing: Callable[[], Observing], runtime: EbpfRuntime, idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observers, "_MAX_OWN", 1)
    observing()
    request = ObservationRequest("syscalls", idle, 0.05)
    with pytest.raises(PoolExhausted, match="runs 1 observations"):
        runtime.observe(request, Watch())
    for _ in range(2):
        assert runtime.observe(request, Watch(), "another").ended == "time"


def test_while_one_is_compiled_others_run_and_the_pool_closes(idle: int) -> None:
    compiling, go_on = threading.Event(), threading.Event()

    class Slow(Compiler):
        def instructions(
            self,
            main: str,
            body: str,
            timeout_s: float,
            on_started: Callable[[], None],
            functions: Sequence[str] = (),
            cancellation: Cancellation | None = None,
        ) -> dict[str, bytes]:
            if body == observers.PROGRAMS["io"].body:
                compiling.set()
                assert go_on.wait(LONG_S)
            return super().instructions(main, body, timeout_s, on_started, functions, cancellation)

    compiler = Slow(PoolSize(minimum=0, maximum=2))
    mine = observers.Observers(compiler)
    failures: list[RunvisorError] = []

    def observe_io() -> None:
        try:
            mine.observe(ObservationRequest("io", idle, 0.05), Cancellation(), lambda: None)
        except RunvisorError as error:
            failures.append(error)

    slow = threading.Thread(target=observe_io)
    try:
        compiler.start()
        slow.start()
        assert compiling.wait(LONG_S)
        other = threading.Thread(
            target=mine.observe,
            args=(ObservationRequest("sched", idle, 0.05), Cancellation(), lambda: None),
            daemon=True,
        )
        closing = threading.Thread(target=mine.close, daemon=True)
        for thread in (other, closing):
            thread.start()
            thread.join(LONG_S / 2)
            assert not thread.is_alive()
    finally:
        go_on.set()
        slow.join()
        mine.close()
        compiler.close()
    assert [failure.what for failure in failures] == ["the runtime is closed"]


def test_a_process_that_has_the_number_of_the_one_meant_is_not_observed(runtime: EbpfRuntime, idle: int) -> None:
    request = ObservationRequest("syscalls", idle, 0.05)
    with pytest.raises(ConfigError, match="has ended"):
        runtime.observe(request, Watch(), birth=process_birth(os.getppid()))
    assert runtime.observe(request, Watch(), birth=process_birth(idle)).ended == "time"


def test_a_thread_that_ended_while_it_was_listed_leaves_its_number_unobserved(
    runtime: EbpfRuntime, idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with known_process("for _ in range(100): os.getpgid(0)") as heir, Cancellation() as cancellation:
        first = iter([{heir.pid}])  # as if a thread of the target had had the number
        monkeypatch.setattr(
            process, "threads_of", lambda pid, *, follow: threads_of(pid, follow=follow) | next(first, set())
        )

        def let_it_run() -> None:
            go(heir)
            assert heir.wait(LONG_S) == 0
            cancellation.cancel()

        request = ObservationRequest("syscalls", idle, LONG_S)
        table = runtime.observe(request, Watch(let_it_run, cancellation=cancellation))
    assert table.ended == "stopped"
    assert "getpgid" not in table.column("syscall")


def test_a_child_that_ended_unnoticed_by_its_parent_does_not_stay_observed(runtime: EbpfRuntime) -> None:
    code = """
if os.fork() == 0: os._exit(0)
os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
"""
    with known_process(code) as parent:
        go(parent)
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        request = ObservationRequest("syscalls", parent.pid, 20.0)
        assert runtime.observe(request, Watch(lambda: go(parent))).ended == "target"


def test_what_is_no_running_process_is_refused(runtime: EbpfRuntime, idle: int) -> None:
    thread_id: list[int] = []
    hold = threading.Event()
    thread = threading.Thread(target=lambda: (thread_id.append(threading.get_native_id()), hold.wait()))
    thread.start()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays to be reaped
        try:
            none, of_another = "no process", "a thread of process"
            for pid, what in [(1 << 22, none), (thread_id[0], of_another), (ended.pid, none)]:
                with pytest.raises(ConfigError, match=what):
                    runtime.observe(ObservationRequest("syscalls", pid, 0.1), Watch())
        finally:
            hold.set()
            thread.join()


def test_a_container_with_process_ids_of_its_own_is_told(
    runtime: EbpfRuntime, idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "_FIRST_PID_NAMESPACE", "pid:[1]")
    with pytest.raises(SpawnFailed, match="--pid=host"):
        runtime.observe(ObservationRequest("syscalls", idle, 0.1), Watch())
