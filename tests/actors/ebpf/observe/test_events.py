"""Authors' event programs in the kernel, over processes whose behaviour is known exactly; and hostile ones."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.ebpf import btf
from runvisor.actors.ebpf.observe import event_harness
from runvisor.actors.ebpf.observe.names import system_call_number
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import Watch
from runvisor.policies.errors import (
    CapabilityDenied,
    ConfigError,
    EngineRefused,
    GuestSyntaxError,
    RunvisorError,
    WorkerCrashed,
)
from runvisor.policies.event_programs import MAX_ROWS
from runvisor.policies.observations import ObservationRequest
from tests.actors.ebpf.observe.breakpoints import has_breakpoint
from tests.actors.ebpf.observe.known import (
    LONG_S,
    attached_by,
    executors,
    is_loaded,
    known_process,
    observe_events,
    row_of,
    wait_until,
)

pytestmark = [pytest.mark.kernel, pytest.mark.root]

CALLS = """// raw_tracepoint: sys_enter
struct key { u64 call; u32 process; u8 name[16]; };
struct value { u64 times, first_argument, max_argument, took_ns, sent_bytes; u32 cores; };
int key_of(struct event *e, struct key *k)
{
    k->call = e->args[1];
    k->process = e->pid;
    __builtin_memcpy(k->name, e->comm, 16);
    return 1;
}
void on_event(struct event *e, struct value *v)
{
    v->times++;
    v->first_argument += e->call_args[0];
    if (e->call_args[0] > v->max_argument)
        v->max_argument = e->call_args[0];
    v->took_ns += 1000000000;
    v->sent_bytes += e->call_args[2];
    v->cores += e->cpu < 4096 && e->time_ns > 0 && e->tid >= e->pid;
}
"""
ENTRY = "void on_event(struct event *e, struct value *v)"
COUNT = "// raw_tracepoint: sys_enter\nstruct value { u64 times; };\n"


def refusal(runtime: EbpfRuntime, program: str) -> RunvisorError:
    """Return what a program is refused with, before the process does anything."""
    with known_process("") as process, pytest.raises(RunvisorError) as caught:
        runtime.observe(ObservationRequest("program", process.pid, 1.0, True, program), Watch())
    return caught.value


def test_system_calls_are_counted_by_key_with_their_arguments(runtime: EbpfRuntime) -> None:
    code = "for n in range(13): os.umask(n)"
    table = observe_events(runtime, CALLS, code)
    assert (table.what, table.lost) == ("raw_tracepoint sys_enter", 0)
    row = row_of(table, call=system_call_number("umask") or -1)
    assert (row["times"], row["first_argument"], row["max_argument"]) == (13, sum(range(13)), 12)
    assert (row["took_s"], row["process"], row["cores"]) == (13.0, table.pid, 13)
    assert str(row["name"]).startswith("python")
    assert [column.kind for column in table.columns if column.name == "sent_bytes"] == ["bytes"]


def test_memory_of_the_observed_process_is_read(runtime: EbpfRuntime) -> None:
    program = f"""// raw_tracepoint: sys_enter
struct key {{ u8 path[32]; s64 bad; }};
struct value {{ u64 times; u64 first_word; }};
int key_of(struct event *e, struct key *k)
{{
    if (e->args[1] != {system_call_number("mkdirat")} && e->args[1] != {system_call_number("mkdir") or -1})
        return 0;
    k->bad = read_user_text(k->path, sizeof k->path, e->call_args[e->args[1] == {system_call_number("mkdirat")}]) < 0;
    return 1;
}}
void on_event(struct event *e, struct value *v)
{{
    u64 word = 7;
    v->times++;
    read_user(&word, sizeof word, 8);
    v->first_word = word;
}}
"""
    code = """
for name in ("one", "one", "two", "long" * 20):
    try: os.mkdir("/nowhere/" + name)
    except FileNotFoundError: pass
"""
    table = observe_events(runtime, program, code)
    counts = {row["path"]: (row["times"], row["bad"]) for row in table.to_dicts()}
    assert counts == {"/nowhere/one": (2, 0), "/nowhere/two": (1, 0), ("/nowhere/" + "long" * 20)[:31]: (1, 0)}
    assert set(table.column("first_word")) == {0}, "memory that is not there reads as zero"


def test_without_a_key_a_table_has_one_row(runtime: EbpfRuntime) -> None:
    program = COUNT + "void on_event(struct event *e, struct value *v) { if (e->args[1] == UMASK) v->times++; }"
    program = program.replace("UMASK", str(system_call_number("umask")))
    table = observe_events(runtime, program, "for n in range(21): os.umask(n)")
    assert table.rows == ((21,),)


PER_PROCESS = """// raw_tracepoint: sys_enter
struct key { u32 process, thread; };
struct value { u64 times; };
int key_of(struct event *e, struct key *k) { k->process = e->pid; k->thread = e->tid; return 1; }
void on_event(struct event *e, struct value *v) { v->times++; }
"""


def test_other_processes_are_never_seen(runtime: EbpfRuntime) -> None:
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            os.getppid()

    other = threading.Thread(target=busy)
    other.start()
    try:
        code = "import time\nif os.fork() == 0:\n    os.umask(0)\n    os._exit(0)\nos.wait()\ntime.sleep(0.05)"
        table = observe_events(runtime, PER_PROCESS, code)
        alone = observe_events(runtime, PER_PROCESS, code, follow=False)
    finally:
        stop.set()
        other.join()
    assert set(alone.column("process")) == {alone.pid}
    processes = set(table.column("process"))
    assert len(processes) == 2
    assert table.pid in processes
    assert os.getpid() not in processes


def test_any_raw_tracepoint_will_do(runtime: EbpfRuntime) -> None:
    program = """// raw_tracepoint: sched_process_exit
struct key { u32 process; };
struct value { u64 ends; };
int key_of(struct event *e, struct key *k) { k->process = e->pid; return 1; }
void on_event(struct event *e, struct value *v) { v->ends++; }
"""
    code = "if os.fork() == 0: os._exit(0)\nos.wait()"
    table = observe_events(runtime, program, code)
    assert sorted(map(int, table.column("ends"))) == [1, 1]


def test_a_full_table_loses_and_says_how_much(runtime: EbpfRuntime) -> None:
    only = f"k->thread = e->call_args[0]; if (e->args[1] != {system_call_number('umask')}) return 0;"
    program = PER_PROCESS.replace("k->thread = e->tid;", only)
    more = 50
    table = observe_events(runtime, program, f"for n in range({MAX_ROWS + more}): os.umask(n)")
    assert len(table) == MAX_ROWS
    assert table.lost == more


def test_a_tracepoint_that_is_not_there_is_told_with_those_of_nearly_its_name(runtime: EbpfRuntime) -> None:
    error = refusal(
        runtime, COUNT.replace("sys_enter", "sched_swich") + "void on_event(struct event *e, struct value *v) {}"
    )
    assert isinstance(error, ConfigError)
    assert "sched_switch" in error.remedy


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ("{ bpf_probe_read_kernel(&v->times, 8, (void *)e->args[0]); }", CapabilityDenied, "bpf_probe_read"),
        ("{ ((long (*)(void *, u32, u64))4)(&v->times, 8, e->args[0]); }", CapabilityDenied, "bpf_probe_read"),
        ("{ rv_read_kernel(&v->times, 8, e->args[0]); }", CapabilityDenied, "bpf_probe_read_kernel itself"),
        ("{ ((long (*)(u32))109)(9); }", CapabilityDenied, "helper number 109"),
        ("{ ((long (*)(u32))130)(9); }", CapabilityDenied, "bpf_ringbuf_output"),
        ("{ u32 n = 1; u8 mark = 1; rv_update(rv_map(1, 0), &n, &mark, 0); }", CapabilityDenied, "update_elem itself"),
        ("{ u32 n = 1; if (rv_lookup(rv_map(1, 0), &n)) v->times++; }", CapabilityDenied, "lookup_elem itself"),
        ("{ v->times = (u64)rv_map(1, 3); }", CapabilityDenied, "not its own"),
        ("{ v->times = ((u64 (*)(void))5)(); }", CapabilityDenied, "ktime_get_ns itself"),
        ("{ while (v->times < e->args[1]) v->times++; }", EngineRefused, "loop"),
        ("{ for (int i = 0; i < 1 << 20; i++) v->times += e->args[i & 3] >> i % 7; }", EngineRefused, "loop"),
        ("{ (&v->times)[200000]++; }", GuestSyntaxError, "beyond"),
        ("{ (&v->times)[e->args[1]]++; }", GuestSyntaxError, ""),
        ("{ *(u64 *)e->args[0] = 1; }", GuestSyntaxError, "pointer"),
        ("{ v->times = *(u64 *)e->args[0]; }", GuestSyntaxError, "pointer"),
        ("{ read_user(&v->times, 4096, e->args[0]); }", GuestSyntaxError, ""),
        ("{ read_user((void *)e->args[0], 8, e->args[1]); }", GuestSyntaxError, ""),
        ("{ v->none = 1; }", GuestSyntaxError, "no member"),
    ],
)
def test_a_hostile_program_is_refused_and_nothing_is_left_of_it(
    runtime: EbpfRuntime, body: str, kind: type[RunvisorError], says: str
) -> None:
    error = refusal(runtime, f"{COUNT}{ENTRY}\n{body}")
    assert type(error) is kind, error
    assert says in error.what
    assert wait_until(lambda: not executors())


def test_a_program_that_is_too_long_is_refused(runtime: EbpfRuntime) -> None:
    lines = "\n".join(f"n=n*{number}^m;" for number in range(3, 2400))
    error = refusal(runtime, f"{COUNT}{ENTRY} {{ u64 n = e->args[1], m = e->tid;\n{lines}\nv->times = n; }}")
    assert isinstance(error, EngineRefused)
    assert str(event_harness.MAX_INSTRUCTIONS) in error.what


def test_a_refusal_of_the_verifier_names_the_line(runtime: EbpfRuntime) -> None:
    error = refusal(runtime, f"{COUNT}{ENTRY}\n{{\n    u64 n = 5;\n    v->times = *(u64 *)e->args[0];\n}}")
    assert error.where.startswith("6:")


def test_every_raw_tracepoint_of_the_kernel_is_known_with_its_arguments() -> None:
    found = btf.raw_tracepoints(btf.VMLINUX.read_bytes())
    assert (found["sys_enter"], found["sys_exit"], found["sched_process_fork"], found["sched_process_exec"]) == (
        2,
        2,
        2,
        3,
    )


PLACES = [
    CALLS,
    f"// tracepoint: sched:sched_switch\nstruct value {{ u64 times; }};\n{ENTRY} {{ v->times += e->prev_pid; }}",
    f"// uprobe: libc:labs\nstruct value {{ u64 times; }};\n{ENTRY} {{ v->times += e->arg[0]; }}",
    f"// uretprobe: libc:labs\nstruct value {{ u64 times; }};\n{ENTRY} {{ v->times += e->ret; }}",
]
"""A program for each kind of place."""


@pytest.mark.parametrize("program", PLACES, ids=[text.split(":")[0][3:] for text in PLACES])
def test_a_killed_observer_takes_the_program_along(runtime: EbpfRuntime, program: str) -> None:
    outcome: list[object] = []
    begun = threading.Event()

    def observe(pid: int) -> None:
        try:
            asked = ObservationRequest("program", pid, LONG_S, True, program)
            outcome.append(runtime.observe(asked, Watch(begun.set, cancellation=Cancellation())))
        except RunvisorError as error:
            outcome.append(error)

    with known_process("sys.stdin.readline()") as process:
        thread = threading.Thread(target=observe, args=(process.pid,))
        thread.start()
        assert begun.wait(LONG_S), outcome
        (observer,) = executors()
        programs = attached_by(observer)
        assert len(programs) == 4
        assert has_breakpoint(process.pid) == ("probe" in program.partition("\n")[0])
        os.kill(observer, signal.SIGKILL)
        thread.join(LONG_S)
        assert isinstance(outcome[0], WorkerCrashed)
        assert wait_until(lambda: not any(map(is_loaded, programs)))
        assert wait_until(lambda: not has_breakpoint(process.pid))


def test_it_ends_with_its_time(runtime: EbpfRuntime) -> None:
    with known_process("sys.stdin.readline()") as process:
        table = runtime.observe(ObservationRequest("program", process.pid, 0.1, True, CALLS), Watch())
    assert (table.ended, table.duration_s) == ("time", pytest.approx(0.1))
