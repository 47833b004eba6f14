"""What the kernel counts of an execution is exact, named, and its own."""

from __future__ import annotations

import errno
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from runvisor.actors.jail.seccomp import FilterKind
from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import Cell, Watch
from runvisor.actors.v8.runtime import V8Runtime
from runvisor.actors.witness.accounts import Accounts
from runvisor.actors.witness.counting import Counting
from runvisor.actors.witness.witness import Witness
from runvisor.policies.errors import GuestException, TimeLimitExceeded
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Isolation, Result, Usage
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Packed, pack
from runvisor.policies.witness import Attempt, KernelUsage
from tests.actors.executing import execute
from tests.actors.witness.loaded_programs import loaded_programs
from tests.actors.witness.processes import say

GETPPID, REBOOT, BPF, CLONE3, IOCTL, IO_URING_SETUP = 110, 169, 321, 435, 16, 425
PRLIMIT64, FUTEX = 302, 202
FIRST_READ_BYTES = 4
"""A child that waits is in the midst of reading its task: the call that it is in was begun before its account was."""
CALLS = "import ctypes, os\ncall = ctypes.CDLL(None, use_errno=True).syscall\n"


def run(runtime: PythonRuntime, code: str, **permissions: Any) -> Result:
    return execute(runtime, CALLS + code, "python", "native", **permissions)


def counted(result: Result) -> KernelUsage:
    assert result.isolation.witness == "kernel"
    assert result.usage.kernel is not None
    return result.usage.kernel


def made(usage: KernelUsage, call: str) -> int:
    return dict(usage.calls).get(call, 0)


def attempts(of: tuple[Attempt, ...]) -> dict[tuple[str, str], int]:
    return {(attempt.call, attempt.error): attempt.count for attempt in of}


def test_every_system_call_is_counted_once(python: PythonRuntime) -> None:
    for calls in (0, 1, 1000):
        usage = counted(run(python, f"for _ in range({calls}): call({GETPPID})"))
        assert made(usage, "getppid") == calls
        assert usage.syscalls == sum(count for _, count in usage.calls)


def test_bytes_are_those_that_were_moved(python: PythonRuntime) -> None:
    code = """
with open("/tmp/file", "w+b", buffering=0) as file:
    for _ in range(WRITES):
        file.write(b"x" * 100)
    file.seek(0)
    for _ in range(WRITES):
        file.read(70)
"""
    none, many = (counted(run(python, code.replace("WRITES", number))) for number in ("0x000", "0x1f4"))
    assert made(many, "write") - made(none, "write") == 500
    assert many.written_bytes - none.written_bytes == 500 * 100
    assert abs(many.read_bytes - none.read_bytes - 500 * 70) <= FIRST_READ_BYTES


def test_what_is_copied_counts_as_read_and_written(python: PythonRuntime) -> None:
    code = """
open("/tmp/a", "wb").write(bytes(1000))
with open("/tmp/a", "rb") as source, open("/tmp/b", "wb") as sink:
    assert os.sendfile(sink.fileno(), source.fileno(), 0, SIZE) == SIZE
"""
    more, less = (counted(run(python, code.replace("SIZE", str(number)))) for number in (900, 200))
    assert abs(more.read_bytes - less.read_bytes - 700) <= FIRST_READ_BYTES
    assert more.written_bytes - less.written_bytes == 700


@pytest.mark.parametrize(("number", "name"), [(REBOOT, "reboot"), (BPF, "bpf"), (IO_URING_SETUP, "io_uring_setup")])
def test_what_the_filter_refuses_is_named_although_it_never_entered_the_kernel(
    python: PythonRuntime, number: int, name: str
) -> None:
    usage = counted(run(python, f"for _ in range(7): assert call({number}, 0, 0, 0) == -1"))
    assert attempts(usage.refused)[name, "EPERM"] == 7
    assert not made(usage, name)
    assert not usage.denied


def test_a_call_that_is_refused_for_its_arguments_is_told_from_those_that_pass(python: PythonRuntime) -> None:
    # FIONREAD on a file passes the filter and is carried out; TIOCSTI is refused.
    code = f"""
fd = os.open("/tmp", os.O_RDONLY)
for _ in range(4): call({IOCTL}, fd, 0x541B, ctypes.byref(ctypes.c_int()))
for _ in range(3): assert call({IOCTL}, fd, 0x5412, 0) == -1
"""
    usage = counted(run(python, code))
    assert attempts(usage.refused)["ioctl", "EPERM"] == 3
    assert made(usage, "ioctl") == 4


def test_the_filters_enosys_is_a_refusal_too(python: PythonRuntime) -> None:
    usage = counted(run(python, f"assert call({CLONE3}, 0, 0) == -1 and ctypes.get_errno() == {errno.ENOSYS}"))
    assert attempts(usage.refused)["clone3", "ENOSYS"] == 1


def test_what_the_kernel_denies_is_told_by_call_and_errno(python: PythonRuntime) -> None:
    code = """
for path, times in (("/usr/x", 3), ("/proc/1/environ", 2)):
    for _ in range(times):
        try:
            os.open(path, os.O_WRONLY | os.O_CREAT)
        except OSError:
            pass
for _ in range(5):
    try:
        os.kill(1 << 21, 0)
    except OSError:
        pass
"""
    usage = counted(run(python, code))
    found = attempts(usage.denied)
    assert found["openat", "EROFS"] == 3
    assert found["openat", "EACCES"] == 2
    assert not usage.refused  # ESRCH is an answer, no denial
    assert usage.denials == 5


def test_one_call_with_one_errno_is_refused_or_denied_by_whoever_said_it(python: PythonRuntime) -> None:
    # EPERM of the filter: the limits of another process. EPERM of the kernel: to raise one's own hard limit.
    code = f"""
higher = (ctypes.c_ulong * 2)(1 << 30, 1 << 30)
for _ in range(3): assert call({PRLIMIT64}, 1, 7, None, None) == -1 and ctypes.get_errno() == {errno.EPERM}
for _ in range(4): assert call({PRLIMIT64}, 0, 7, higher, None) == -1 and ctypes.get_errno() == {errno.EPERM}
for _ in range(2): assert call({PRLIMIT64}, 0, 7, None, None) == 0
"""
    none, some = counted(run(python, "")), counted(run(python, code))
    assert attempts(some.refused) == {("prlimit64", "EPERM"): 3}
    assert attempts(some.denied) == {("prlimit64", "EPERM"): 4}
    assert made(some, "prlimit64") - made(none, "prlimit64") == 4 + 2


def test_a_call_that_the_kernel_does_not_know_is_no_refusal(python: PythonRuntime) -> None:
    code = f"for _ in range(5): assert call({FUTEX}, 0, 99) == -1 and ctypes.get_errno() == {errno.ENOSYS}"
    none, some = counted(run(python, "")), counted(run(python, code))
    assert made(some, "futex") - made(none, "futex") >= 5
    assert not some.denials


def test_numbers_that_no_call_has_are_refused_and_upper_halves_do_not_count(python: PythonRuntime) -> None:
    code = f"""
for number in (-1, 511, 600, 1 << 29):
    assert call(ctypes.c_long(number), 0, 0) == -1 and ctypes.get_errno() == {errno.EPERM}
for _ in range(6): assert call(ctypes.c_long(1 << 32 | {GETPPID})) >= 0
"""
    usage = counted(run(python, code))
    assert attempts(usage.refused) == {("other", "EPERM"): 3, ("call 511", "EPERM"): 1}
    assert made(usage, "getppid") == 6


def test_the_return_from_a_signal_is_counted_and_nothing_else_of_it(python: PythonRuntime) -> None:
    code = f"""
import signal
signal.signal(signal.SIGUSR1, lambda *_: call({GETPPID}))
for _ in range(20): os.kill(os.getpid(), signal.SIGUSR1)
"""
    usage = counted(run(python, code))
    assert (made(usage, "rt_sigreturn"), made(usage, "kill"), made(usage, "getppid")) == (20, 20, 20)
    assert not usage.denials


def test_a_new_thread_comes_out_of_one_call(python: PythonRuntime) -> None:
    code = """
import threading
threads = [threading.Thread(target=lambda: None) for _ in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    usage = counted(run(python, code))
    assert made(usage, "clone") == 5
    assert attempts(usage.refused) == {("clone3", "ENOSYS"): 5}


def test_all_threads_count(python: PythonRuntime) -> None:
    code = f"""
import threading
def work():
    for _ in range(500): call({GETPPID})
    call({REBOOT})
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    usage = counted(run(python, code))
    assert made(usage, "getppid") == 2000
    assert attempts(usage.refused)["reboot", "EPERM"] == 4


def test_executions_side_by_side_do_not_mix(python: PythonRuntime) -> None:
    together = threading.Barrier(3)

    def one(calls: int) -> int:
        together.wait()
        return made(counted(run(python, f"for _ in range({calls}): call({GETPPID})")), "getppid")

    with ThreadPoolExecutor(3) as threads:
        wanted = [[1000 + 7 * number + turn for number in range(3)] for turn in range(5)]
        for calls in wanted:
            assert list(threads.map(one, calls)) == calls


def test_an_account_that_was_used_before_starts_from_nothing(python: PythonRuntime) -> None:
    for _ in range(20):  # more than there are accounts
        assert made(counted(run(python, f"for _ in range(9): call({GETPPID})")), "getppid") == 9


def test_cpu_time_is_that_of_the_process_clock(python: PythonRuntime) -> None:
    result = run(python, "import time\nwhile time.process_time() < 0.3: pass", timeout_s=20.0)
    assert result.usage.cpu_s is not None
    # Interrupts that come meanwhile are counted as the thread's.
    assert result.usage.cpu_s * 0.9 - 0.02 <= counted(result).cpu_s <= result.usage.cpu_s * 1.5 + 0.05


def test_the_last_moments_of_what_is_killed_count(python: PythonRuntime) -> None:
    result = run(python, f"call({REBOOT})\nwhile True: pass", timeout_s=0.4)
    assert isinstance(result.error, TimeLimitExceeded)
    assert result.usage.cpu_s is not None
    assert counted(result).cpu_s >= result.usage.cpu_s * 0.9 - 0.02
    assert attempts(counted(result).refused)["reboot", "EPERM"] == 1


def test_a_guest_that_dies_is_counted_to_its_end(python: PythonRuntime) -> None:
    result = run(python, f"for _ in range(50): call({GETPPID})\nos._exit(3)")
    assert isinstance(result.error, GuestException)
    assert made(counted(result), "getppid") == 50
    assert made(counted(result), "exit_group") == 1


def test_a_guest_can_neither_name_nor_change_its_account(python: PythonRuntime) -> None:
    code = f"""
for _ in range(30): call({GETPPID})
tried = []
for path in ("/sys/fs/cgroup", "/sys/fs/bpf", "/proc/self/cgroup", "/sys/kernel/tracing"):
    try:
        tried.append(os.listdir(path) if os.path.isdir(path) else open(path, "r+").read())
    except OSError:
        pass
for command in range(40):
    assert call({BPF}, command, 0, 0) == -1 and ctypes.get_errno() == {errno.EPERM}
for fd in range(3, 40):
    try:
        os.write(fd, b"\\x00\\x00\\x00\\x00")
        tried.append(fd)
    except OSError:
        pass
    break
tried
"""
    usage = counted(run(python, code))
    assert made(usage, "getppid") == 30
    assert attempts(usage.refused)["bpf", "EPERM"] == 40


def test_a_guest_cannot_put_words_into_the_kernels_mouth(python: PythonRuntime) -> None:
    forged = {"op": "value", "value": pack(1), "kernel": {"syscalls": 0}, "usage": {"kernel": None}, "witness": "off"}
    code = f"""
import msgpack, socket
body = msgpack.packb({forged!r})
channel = socket.socket(fileno=os.dup(3))
for _ in range(11): call({GETPPID})
channel.sendall(len(body).to_bytes(4, "big") + body)
os._exit(0)
"""
    assert made(counted(run(python, code)), "getppid") == 11


def test_each_cell_of_a_session_has_its_own_counts(python: PythonRuntime) -> None:
    permissions = Permissions()
    task = Task("0", "python", None, permissions, Trust.UNTRUSTED)
    session = python.open_session(task, "native", Grant("tester", Trust.UNTRUSTED, permissions))
    try:
        assert session.run(Cell(CALLS, Packed(pack(None))), Watch()).ok
        for calls in (3, 0, 40):
            result = session.run(Cell(f"for _ in range({calls}): call({GETPPID})", Packed(pack(None))), Watch())
            assert made(counted(result), "getppid") == calls
    finally:
        session.close()


@dataclass
class Known:
    """What counting knows of a child."""

    pidfd: int
    identity: int | None
    filter: FilterKind | None = None


def test_a_clock_that_lags_behind_what_the_kernel_counted_is_not_believed(
    witness: Witness, reader: tuple[subprocess.Popen[bytes], int]
) -> None:
    """The clock of a process that still runs moves at the next tick; here it has not moved at all."""
    process, identity = reader
    accounts = Accounts.connect(witness.path, 1)
    with Counting(Known(-1, identity), accounts.open(identity), "") as counting:
        say(process, b"1")
        counting.finish(killed=False)
        for clock_s in (None, 0.0, 1000.0):
            result = counting.told(Result(isolation=Isolation("test"), usage=Usage(cpu_s=clock_s)))
            assert result.usage.cpu_s == max(clock_s or 0.0, counted(result).cpu_s) > 0
    accounts.close()


def test_javascript_is_counted_like_python(v8: V8Runtime) -> None:
    short, long = (
        counted(execute(v8, f"for (let i = 0; i < {turns}; i++) console.log('x'.repeat(99));", "javascript", "isolate"))
        for turns in (10, 210)
    )
    assert long.written_bytes - short.written_bytes >= 200 * 100
    assert short.cpu_s > 0
    assert not long.denied


def test_off_is_off() -> None:
    before = loaded_programs()
    runtime = PythonRuntime(profile="bare")
    try:
        runtime.start()
        result = run(runtime, "1")
        assert loaded_programs() <= before
    finally:
        runtime.close()
    assert result.usage.kernel is None
    assert result.isolation.witness == ""
