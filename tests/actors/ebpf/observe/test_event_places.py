"""Authors' programs at tracepoints with fields and at functions, over processes whose behaviour is known exactly."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.ebpf import attach
from runvisor.actors.ebpf.observe import event_places
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import Watch
from runvisor.policies.errors import CapabilityDenied, ConfigError, GuestSyntaxError, RunvisorError
from runvisor.policies.observations import ObservationRequest
from tests.actors.ebpf.observe.breakpoints import has_breakpoint, labs_of
from tests.actors.ebpf.observe.known import LONG_S, go, known_process, observe_events, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.root]

LIBC = "import ctypes\nlibc = ctypes.CDLL('libc.so.6')\n"
CALLS = LIBC + "for n in range(100): libc.labs(-n)\n"
VALUE = "struct value { u64 times; };\n"
COUNT = VALUE + "void on_event(struct event *e, struct value *v) { v->times++; }\n"


def counting(place: str) -> str:
    return f"// {place}\n{COUNT}"


def keyed(place: str, key: str, filling: str) -> str:
    """Return a program that counts by a key."""
    return f"// {place}\nstruct key {{ {key} }};\n{COUNT}int key_of(struct event *e, struct key *k) {{ {filling} }}\n"


@pytest.fixture
def idle() -> Iterator[int]:
    """A process that waits, and has libc."""
    with known_process("sys.stdin.readline()") as process:
        yield process.pid


def refusal(runtime: EbpfRuntime, pid: int, program: str, *, follow: bool = True) -> RunvisorError:
    with pytest.raises(RunvisorError) as caught:
        runtime.observe(ObservationRequest("program", pid, 1.0, follow, program), Watch())
    return caught.value


def test_a_tracepoint_gives_its_fields_by_name(runtime: EbpfRuntime) -> None:
    program = keyed(
        "tracepoint: sched:sched_process_exec",
        "u8 file[64]; s32 same; u32 length;",
        "__builtin_memcpy(k->file, e->filename, 64); k->same = e->pid_ == (s32)e->pid && e->old_pid == e->pid_;"
        "k->length = e->filename_bytes; return 1;",
    )
    code = "for _ in range(3):\n    if os.fork() == 0: os.execv('/bin/true', ['true'])\n    os.wait()"
    table = observe_events(runtime, program, code)
    assert table.what == "tracepoint sched:sched_process_exec"
    assert table.to_dicts() == [{"file": "/bin/true", "same": 1, "length": len("/bin/true") + 1, "times": 3}]


def test_a_tracepoints_arrays_and_pointers_are_read(runtime: EbpfRuntime) -> None:
    switches = keyed(
        "tracepoint: sched:sched_switch",
        "u8 name[16]; u32 own;",
        "__builtin_memcpy(k->name, e->prev_comm, 16); k->own = e->prev_pid == (s32)e->tid; return 1;",
    )
    table = observe_events(runtime, switches, "import time\nfor _ in range(10): time.sleep(0.001)")
    (row,) = table.to_dicts()
    assert (str(row["name"]).startswith("python"), row["own"]) == (True, 1)
    assert int(row["times"]) >= 10
    numbers = keyed("tracepoint: raw_syscalls:sys_enter", "u64 mask;", "k->mask = e->args[0]; return e->id == 95;")
    if os.uname().machine == "x86_64":
        table = observe_events(runtime, numbers, "for n in (7, 7, 9): os.umask(n)")
        assert table.rows == ((7, 2), (9, 1))
    paths = keyed(
        "tracepoint: syscalls:sys_enter_mkdirat",
        "u8 path[32];",
        "return read_user_text(k->path, sizeof k->path, e->pathname) > 0;",
    )
    table = observe_events(runtime, paths, "os.mkdir('gone', dir_fd=os.open('/proc/self', os.O_RDONLY))", status=1)
    assert table.rows == (("gone", 1),)


def test_a_text_is_cut_to_its_room_and_holds_nothing_of_the_event_before(runtime: EbpfRuntime, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    copy = str(shutil.copy("/bin/true", folder))
    program = keyed(
        "tracepoint: sched:sched_process_exec",
        "u8 file[64]; u64 behind; u32 length;",
        "__builtin_memcpy(k->file, e->filename, 64); __builtin_memcpy(&k->behind, e->filename + 80, 8);"
        "k->length = e->filename_bytes; return 1;",
    )
    code = f"""
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})  # the kernel has one buffer per core
for path in ({copy!r}, "/bin/true"):
    if os.fork() == 0: os.execv(path, ["true"])
    os.wait()
"""
    table = observe_events(runtime, program, code)
    whole = int.from_bytes(copy.encode()[80:88], "little")
    assert sorted(table.rows) == [("/bin/true", 0, 10, 1), (copy[:64], whole, len(copy) + 1, 1)]


@pytest.mark.parametrize(
    ("program", "says", "remedy"),
    [
        (counting("tracepoint: sched:sched_swich"), "no tracepoint sched:sched_swich", "sched:sched_switch"),
        (counting("tracepoint: sched:sched_switch").replace("++", " += e->prev_pdi"), "no member", "has prev_pid"),
        (counting("tracepoint: sched:sched_switch").replace("++", " += e->nothing"), "no member", "prev_comm, prev"),
        (counting("tracepoint: sched:sched_switch").replace("++", " += e->args[0]"), "no member", "prev_comm, prev"),
        (counting("uprobe: libc:mallo"), "no function mallo", "use malloc"),
        (counting("uprobe: libnothing:malloc"), "no code of a file called libnothing", "libc.so.6"),
        (counting("uprobe: lib:malloc"), "no code of a file called lib", "libc.so.6"),
        (counting("uprobe: /nowhere:malloc"), "/nowhere cannot be opened", ""),
        (counting("uprobe: /etc/hostname:malloc"), "cannot be read", ""),
        (counting("uprobe: /etc:malloc"), "no regular file", ""),
        (counting("uprobe: libc:labs+1"), "amidst an instruction", "--only"),
        (counting("uprobe: libc:labs").replace("++", " += e->ret"), "no member named 'ret'", ""),
        (counting("uretprobe: libc:labs").replace("++", " += e->arg[0]"), "no member named 'arg'", ""),
    ],
)
def test_what_is_not_there_is_told_with_what_is(
    runtime: EbpfRuntime, idle: int, program: str, says: str, remedy: str
) -> None:
    error = refusal(runtime, idle, program)
    assert isinstance(error, ConfigError | GuestSyntaxError)
    assert says in error.what
    assert remedy in error.remedy


@pytest.mark.parametrize("place", ["tracepoint: sched:sched_process_exec", "uprobe: libc:labs"])
def test_at_other_places_too_nothing_else_of_the_kernel_is_called(runtime: EbpfRuntime, idle: int, place: str) -> None:
    forged = counting(place).replace("v->times++", "rv_read_kernel(&v->times, 8, e->time_ns)")
    filename = "v->times += e->filename[0]; " if place.startswith("tracepoint") else ""
    for program in (
        forged,
        forged.replace("{ rv", f"{{ {filename}rv"),
        forged.replace("rv_read_kernel(&v->times, 8, e->time_ns", "bpf_probe_read(&v->times, 8, (void *)e->time_ns"),
    ):
        assert isinstance(refusal(runtime, idle, program), CapabilityDenied)
    for beyond in ("((u64 *)e)[1000]", "*(u64 *)e->time_ns"):  # the compiler refuses the one, the verifier the other
        program = counting(place).replace("v->times++", f"v->times = {beyond}")
        assert isinstance(refusal(runtime, idle, program), GuestSyntaxError)
    assert wait_until(lambda: not has_breakpoint(idle))


@pytest.mark.parametrize("follow", [True, False])
def test_a_functions_arguments_are_seen_when_it_is_entered(runtime: EbpfRuntime, follow: bool) -> None:
    program = keyed(
        "uprobe: libc:snprintf",
        "u64 size; u8 format[16]; u64 third, fourth, fifth;",
        "k->size = e->arg[1]; k->third = e->arg[3]; k->fourth = e->arg[4]; k->fifth = e->arg[5];"
        "return read_user_text(k->format, sizeof k->format, e->arg[2]) > 0 && k->size == 7;",
    )
    code = f"{LIBC}for _ in range(9): libc.snprintf(ctypes.create_string_buffer(9), 7, b'%d %d %d', 3, 4, 5)"
    table = observe_events(runtime, program, code, follow=follow)
    assert table.rows == ((7, "%d %d %d", 3, 4, 5, 9),)
    assert table.what.startswith("uprobe /")
    assert table.what.endswith("/libc.so.6:snprintf")


def test_a_functions_result_is_seen_when_it_returns(runtime: EbpfRuntime) -> None:
    path = labs_of(os.getpid())[1]
    program = keyed(f"uretprobe: {path}:labs", "s64 result;", "k->result = e->ret; return 1;")
    table = observe_events(runtime, program, LIBC + "for n in (-4, -4, 9): libc.labs(n)")
    assert table.rows == ((4, 2), (9, 1))
    assert table.what == f"uretprobe {path}:labs"


CHILDREN = """
threads = [threading.Thread(target=lambda: [libc.labs(n) for n in range(10)]) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
if os.fork() == 0:
    for n in range(1000): libc.labs(n)
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize(("follow", "calls"), [(True, 1030), (False, 30)])
def test_threads_are_always_followed_and_children_if_asked(runtime: EbpfRuntime, follow: bool, calls: int) -> None:
    table = observe_events(runtime, counting("uprobe: libc:labs"), LIBC + CHILDREN, follow=follow)
    assert table.rows == ((calls,),)


@pytest.mark.parametrize("follow", [True, False])
def test_calls_of_other_processes_are_never_counted_and_alone_it_costs_them_nothing(
    runtime: EbpfRuntime, idle: int, follow: bool
) -> None:
    with known_process(CALLS) as other, known_process(CALLS) as process, Cancellation() as cancellation:
        seen: list[bool] = []

        def while_attached() -> None:
            seen.extend([has_breakpoint(process.pid), has_breakpoint(other.pid), has_breakpoint(idle)])
            for each in (other, process):
                go(each)
                assert each.wait(LONG_S) == 0

        program = counting("uprobe: libc:labs")
        request = ObservationRequest("program", process.pid, LONG_S, follow, program)
        table = runtime.observe(request, Watch(while_attached, cancellation=cancellation))
        assert table.rows == ((100,),)
    assert seen == [True, follow, follow]
    assert wait_until(lambda: not has_breakpoint(idle))


def test_an_offset_is_for_a_process_alone(runtime: EbpfRuntime) -> None:
    start, _, _ = labs_of(os.getpid())
    first = ctypes.string_at(start, 4)
    skipped = {b"\xf3\x0f\x1e\xfa": 4, b"\x48\x89": 3}  # endbr64; mov of two registers
    width = next((size for code, size in skipped.items() if first.startswith(code)), 0)
    if not width:
        pytest.skip(f"labs begins with {first.hex()}")
    table = observe_events(runtime, counting(f"uprobe: libc:labs+{width:#x}"), CALLS, follow=False)
    assert table.rows == ((100,),)


def test_a_file_that_is_not_mapped_yet_is_observed_by_its_path(runtime: EbpfRuntime, tmp_path: Path) -> None:
    copy = tmp_path / "libcopy.so"
    shutil.copy(labs_of(os.getpid())[1], copy)
    tmp_path.chmod(0o755)
    code = f"import ctypes\nlibrary = ctypes.CDLL({str(copy)!r})\nfor n in range(12): library.labs(n)"
    table = observe_events(runtime, counting(f"uprobe: {copy}:labs"), code)
    assert table.rows == ((12,),)


def test_where_calls_are_not_known_functions_are_refused(
    runtime: EbpfRuntime, idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_places, "MACHINE", "aarch64")
    error = refusal(runtime, idle, counting("uprobe: libc:labs"))
    assert isinstance(error, ConfigError)
    assert "x86_64 only" in error.what


def test_a_kernel_that_opens_no_event_is_told(
    runtime: EbpfRuntime, idle: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(attach, "_UPROBE_TYPE", tmp_path / "none")
    error = refusal(runtime, idle, counting("uprobe: libc:labs"))
    assert "the kernel opens no uprobe /" in error.what
    assert "CONFIG_UPROBE_EVENTS" in error.remedy
