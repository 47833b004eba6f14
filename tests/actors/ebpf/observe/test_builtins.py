"""What the built-in observations say of processes whose behaviour is known exactly."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

import pytest

from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import Watch
from runvisor.policies.observations import ObservationRequest
from tests.actors.ebpf.observe.known import LONG_S, go, known_process, observe_known, row_of

pytestmark = [pytest.mark.kernel, pytest.mark.root]


def test_system_calls_are_counted_with_their_errors_and_times(runtime: EbpfRuntime) -> None:
    code = """
for _ in range(17): os.getppid()
for _ in range(5):
    try: os.rmdir("/nowhere/at/all")
    except FileNotFoundError: pass
os.system is None or __import__("time").sleep(0.05)
"""
    table = observe_known(runtime, "syscalls", code)
    getppid, rmdir = row_of(table, syscall="getppid"), row_of(table, syscall="rmdir")
    assert (getppid["calls"], getppid["errors"], getppid["unfinished"]) == (17, 0, 0)
    assert (rmdir["calls"], rmdir["errors"]) == (5, 5)
    asleep = row_of(table, syscall="clock_nanosleep")
    assert 0.05 <= float(asleep["longest_s"]) <= float(asleep["total_s"])
    assert float(asleep["mean_s"]) * int(asleep["calls"]) == pytest.approx(float(asleep["total_s"]))
    left = row_of(table, syscall="exit_group")
    assert (left["calls"], left["unfinished"]) == (1, 1)


def test_files_are_told_apart_by_path_and_way_and_result(runtime: EbpfRuntime, tmp_path: Path) -> None:
    code = """
here = sys.argv[1]
for _ in range(7): os.close(os.open("/etc/hostname", os.O_RDONLY))
for _ in range(3): os.close(os.open(here + "/made", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
for _ in range(2):
    try: os.open(here + "/missing", os.O_RDWR)
    except FileNotFoundError: pass
os.chdir(here)
os.close(os.open("made", os.O_RDONLY | os.O_APPEND))
try: os.open("/" + "long" * 100, os.O_RDONLY)
except OSError: pass
"""
    table = observe_known(runtime, "files", code, str(tmp_path))
    hostname = row_of(table, path="/etc/hostname")
    assert (hostname["how"], hostname["result"], hostname["times"]) == ("read", "ok", 7)
    assert float(hostname["total_s"]) > 0
    made = row_of(table, path=f"{tmp_path}/made")
    assert (made["how"], made["result"], made["times"]) == ("write create truncate", "ok", 3)
    missing = row_of(table, path=f"{tmp_path}/missing")
    assert (missing["how"], missing["result"], missing["times"]) == ("read+write", "ENOENT", 2)
    assert row_of(table, path="made")["how"] == "read append"
    assert row_of(table, path=("/" + "long" * 100)[:239] + "...")["result"] == "ENAMETOOLONG"


def test_bytes_are_counted_by_descriptor_and_what_it_leads_to(runtime: EbpfRuntime, tmp_path: Path) -> None:
    code = """
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for _ in range(11): os.write(fd, b"x" * 100)
os.writev(fd, [b"ab", b"cde"])
os.pread(fd, 50, 0)
os.pread(fd, 50, 0)
try: os.write(os.open("/dev/full", os.O_WRONLY), b"x")
except OSError: pass
read_end, write_end = os.pipe()
os.write(write_end, b"y" * 30)
os.read(read_end, 100)
os.sendfile(write_end, fd, 0, 40)
try: os.read(12345, 1)
except OSError: pass
"""
    table = observe_known(runtime, "io", code, str(tmp_path / "data"))
    file = row_of(table, name="data")
    assert (file["type"], file["writes"], file["written_bytes"]) == ("file", 12, 1105)
    assert (file["reads"], file["read_bytes"], file["errors"]) == (3, 140, 0)
    full = row_of(table, name="full")
    assert (full["type"], full["writes"], full["written_bytes"], full["errors"]) == ("character device", 1, 0, 1)
    pipes = [row for row in table.to_dicts() if row["type"] == "pipe" and row["descriptor"] != 0]
    assert sorted((row["read_bytes"], row["written_bytes"]) for row in pipes) == [(0, 70), (30, 0)]
    assert row_of(table, descriptor=12345)["type"] == "none"


def test_a_descriptor_is_what_it_was_when_the_call_began(runtime: EbpfRuntime) -> None:
    code = """
reader, writer = os.pipe()
thread = threading.Thread(target=os.read, args=(reader, 5))
thread.start()
while open(f"/proc/self/task/{thread.native_id}/syscall").read().split()[1:2] != [hex(reader)]: pass
os.dup2(os.open("/dev/null", os.O_RDWR), reader)
os.write(writer, b"12345")
thread.join()
"""
    row = row_of(observe_known(runtime, "io", code), read_bytes=5, reads=1)
    assert row["type"] == "pipe"


@pytest.mark.parametrize("call", ["os.read(number, 1)", "os.pread(number, 1, -1)"], ids=["EBADF", "EINVAL"])
def test_a_number_that_is_no_descriptor_leads_to_nobody_elses_file(runtime: EbpfRuntime, call: str) -> None:
    code = f"""
for number in range(64, 4000):
    try: {call}
    except OSError: pass
"""
    rows = [row for row in observe_known(runtime, "io", code).to_dicts() if int(row["descriptor"]) >= 64]
    assert len(rows) == 4000 - 64
    assert {(row["type"], row["name"]) for row in rows} == {("none", "")}


def test_a_descriptor_that_the_kernel_refused_is_not_followed(runtime: EbpfRuntime) -> None:
    code = """
fd = os.open("/dev/null", os.O_WRONLY)
try: os.read(fd, 1)
except OSError: pass
os.write(fd, b"x")
"""
    table = observe_known(runtime, "io", code)
    written = row_of(table, name="null", writes=1)
    assert (written["type"], written["errors"]) == ("character device", 0)
    refused = row_of(table, descriptor=written["descriptor"], reads=1)
    assert (refused["type"], refused["name"], refused["errors"]) == ("none", "", 1)


def test_waits_for_a_core_make_a_histogram(runtime: EbpfRuntime) -> None:
    switches = 40
    code = f"import time\nfor _ in range({switches}): time.sleep(0.02)"  # it sleeps before that rings, on any machine
    table = observe_known(runtime, "sched", code)
    waits = [int(str(number)) for number in table.column("waits")]
    assert switches <= sum(waits)
    rows = table.to_dicts()
    for row, following in itertools.pairwise(rows):
        assert row["below_s"] == following["from_s"], "no bucket is left out"
    for row in rows:
        if row["waits"]:
            assert float(row["from_s"]) <= float(row["longest_s"]) < float(row["below_s"])
            assert float(row["from_s"]) * int(row["waits"]) <= float(row["total_s"])


CHILDREN_AND_THREADS = """
def many(count):
    for _ in range(count): os.getppid()
thread = threading.Thread(target=many, args=(13,))
thread.start()
thread.join()
if os.fork() == 0:
    many(100)
    if os.fork() == 0:
        inner = threading.Thread(target=many, args=(1000,))
        inner.start()
        inner.join()
        os._exit(0)
    os.wait()
    os._exit(0)
os.wait()
"""


@pytest.mark.parametrize(("follow", "calls"), [(True, 1113), (False, 13)])
def test_threads_are_always_followed_and_children_if_asked(runtime: EbpfRuntime, follow: bool, calls: int) -> None:
    table = observe_known(runtime, "syscalls", CHILDREN_AND_THREADS, follow=follow)
    assert row_of(table, syscall="getppid")["calls"] == calls


THERE_BEFORE = """
gate = threading.Event()
reader, writer = os.pipe()
if os.fork() == 0:
    os.read(reader, 1)
    for _ in range(70): os.getppid()
    os._exit(0)
thread = threading.Thread(target=lambda: (gate.wait(), [os.getppid() for _ in range(700)]))
thread.start()
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.readline()
gate.set()
os.write(writer, b"x")
os.wait()
thread.join()
"""


def test_children_and_threads_that_were_there_before_are_followed(runtime: EbpfRuntime) -> None:
    with known_process(THERE_BEFORE) as process:
        go(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        request = ObservationRequest("syscalls", process.pid, LONG_S)
        table = runtime.observe(request, Watch(lambda: go(process)))
    assert row_of(table, syscall="getppid")["calls"] == 770


def test_a_program_started_by_another_thread_than_the_first_is_still_followed(runtime: EbpfRuntime) -> None:
    code = """
again = "import os; [os.getppid() for _ in range(29)]"
threading.Thread(target=lambda: os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", again])).start()
threading.Event().wait()
"""
    table = observe_known(runtime, "syscalls", code)
    assert row_of(table, syscall="getppid")["calls"] == 29
    assert row_of(table, syscall="execve")["calls"] == 1


def test_nothing_of_any_other_process_is_seen(runtime: EbpfRuntime) -> None:
    stop = threading.Event()

    def others() -> None:
        while not stop.is_set():
            os.getpgid(0)

    thread = threading.Thread(target=others)
    thread.start()
    try:
        table = observe_known(runtime, "syscalls", "for _ in range(1000): os.getppid()")
    finally:
        stop.set()
        thread.join()
    assert row_of(table, syscall="getppid")["calls"] == 1000
    assert "getpgid" not in table.column("syscall")
