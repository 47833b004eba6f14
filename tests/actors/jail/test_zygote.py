"""What a sealed child can and cannot do, looked at from inside. Each layer has a test of its own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.jail.cgroups import can_bound_cpu, find_hierarchy, find_v1_parent
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.standing import find_standing, layers_for
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.process_birth import process_birth
from runvisor.policies.errors import SpawnFailed
from runvisor.policies.permissions import MiB
from tests.stopping import stop


def layers_here() -> frozenset[str]:
    try:
        find_hierarchy()
        memory_cgroup = True
    except OSError:
        memory_cgroup = False
    return layers_for(JailSpec("any", "none"), find_standing(), memory_cgroup=memory_cgroup, cpu_cgroup=can_bound_cpu())


pytestmark = [
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]

HERE = layers_here()


def needs(layer: str) -> pytest.MarkDecorator:
    """Skip a test where this user cannot have a layer."""
    return pytest.mark.skipif(layer not in HERE, reason=f"this user cannot have: {layer}")


TESTS_FOLDER = str(Path(__file__).resolve().parents[2])
PRISONER = JailSpec("prisoner", "actors.jail.prisoner", import_from=(TESTS_FOLDER,))


def ask(child: Child, value: str = "None", do: str = "") -> Any:
    child.channel.send({"value": value, "do": do})
    answer = child.channel.receive()
    assert answer is not None
    return answer.get("value", answer.get("error"))


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote(PRISONER)
    zygote.start()
    yield zygote
    zygote.close()


@pytest.fixture
def child(zygote: Zygote) -> Iterator[Child]:
    child = zygote.spawn(memory_bytes=64 * MiB)
    yield child
    child.close()


@needs("pid namespace")
def test_it_is_process_1_and_sees_no_other(child: Child) -> None:
    assert ask(child, "os.getpid()") == 1
    assert sorted(ask(child, "[n for n in os.listdir('/proc') if n.isdigit()]")) == ["1"]


@needs("own uid")
def test_it_has_a_uid_of_its_own_and_no_capability(zygote: Zygote, child: Child) -> None:
    other = zygote.spawn(memory_bytes=64 * MiB)
    try:
        assert ask(child, "os.getuid()") not in (0, os.getuid(), ask(other, "os.getuid()"))
        assert "CapEff:\t0000000000000000" in ask(child, "open('/proc/self/status').read()")
        assert "CapBnd:\t0000000000000000" in ask(child, "open('/proc/self/status').read()")
    finally:
        other.close()


@needs("mount namespace, read-only root")
def test_host_files_do_not_exist(child: Child, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    assert ask(child, f"open({str(secret)!r}).read()") == "FileNotFoundError"
    assert ask(child, "open('/etc/shadow').read()") == "FileNotFoundError"
    assert ask(child, "open('/sys/kernel/uevent_seqnum').read()") == "FileNotFoundError"


def test_the_interpreter_is_there_but_read_only(child: Child) -> None:
    assert ask(child, "len(os.listdir(os.path.dirname(os.__file__))) > 100") is True
    assert ask(child, "open(os.__file__, 'a')") in ("OSError", "PermissionError")


def test_landlock_denies_what_the_mounts_would_allow(child: Child) -> None:
    # The root's own mode is 0755: only Landlock stands between the guest and listing it.
    assert ask(child, "os.listdir('/')") == "PermissionError"


@needs("mount namespace, read-only root")
def test_the_scratch_is_its_own_and_bounded(zygote: Zygote, child: Child) -> None:
    assert ask(child, "open('/tmp/mine', 'w').write('x')") == 1
    other = zygote.spawn(memory_bytes=64 * MiB, disk_bytes=1 * MiB)
    try:
        assert "mine" not in ask(other, "os.listdir('/tmp')")
        signal_ignored = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
        assert ask(other, "open('/tmp/big', 'wb').write(bytes(2 << 20))", signal_ignored) == "OSError"
    finally:
        other.close()


@needs("mount namespace, read-only root")
@pytest.mark.skipif(not os.access("/tmp", os.W_OK), reason="this user may not write in /tmp")
def test_a_checkout_under_tmp_is_still_shown(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "data.txt").write_text("shown")
        zygote = Zygote(replace(PRISONER, readable=(folder,)))
        zygote.start()
        try:
            child = zygote.spawn(memory_bytes=64 * MiB)
            assert ask(child, f"open({folder + '/data.txt'!r}).read()") == "shown"
            assert ask(child, f"open({folder + '/new'!r}, 'w')") in ("OSError", "PermissionError")
            child.close()
        finally:
            zygote.close()


@needs("mount namespace, read-only root")
def test_files_in_the_scratch_cannot_be_executed(child: Child) -> None:
    assert "noexec" in ask(child, "[l for l in open('/proc/self/mounts') if ' /tmp ' in l][-1]")


@pytest.mark.parametrize(
    "call",
    [
        "__import__('socket').socket()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "__import__('subprocess').run(['/bin/true'])",
        "os.chroot('/tmp')",
        "os.setuid(0)",
        "os.mknod('/tmp/node')",
        "os.memfd_create('x')",
        "os.pidfd_open(1)",
        "os.sched_setaffinity(0, {0})",
        "__import__('fcntl').flock(os.open('/usr/bin/env', os.O_RDONLY), 2)",
        "__import__('fcntl').fcntl(3, 5, b' ' * 32)",  # F_GETLK
        "__import__('socket').socketpair(type=__import__('socket').SOCK_DGRAM)",
        "__import__('socket').socketpair()[0].setsockopt(1, 26, b' ' * 16)",  # SO_ATTACH_FILTER
        "__import__('socket').socketpair()[0].getsockopt(1, 77)",  # SO_PEERPIDFD
    ],
)
def test_system_calls_that_are_not_listed_are_refused(child: Child, call: str) -> None:
    assert ask(child, call) == "PermissionError"


def test_what_programs_need_is_allowed(child: Child) -> None:
    do = (
        "import sqlite3, asyncio\n"
        "db = sqlite3.connect('x.db'); db.execute('create table t (x)'); db.execute('insert into t values (7)')\n"
        "db.commit(); rows = db.execute('select x from t').fetchall()\n"
        "answer = asyncio.run(asyncio.sleep(0, 'asyncio works'))"
    )
    assert ask(child, "[rows[0][0], answer]", do) == [7, "asyncio works"]


@needs("ipc and uts namespaces")
def test_it_does_not_know_the_host_name(child: Child) -> None:
    assert ask(child, "os.uname().nodename") == "sandbox"


def test_threads_may_start(child: Child) -> None:
    do = "import threading; t = threading.Thread(target=lambda: None); t.start(); t.join()"
    assert ask(child, "'threads work'", do) == "threads work"


def test_its_environment_is_not_ours(zygote: Zygote) -> None:
    os.environ["RUNVISOR_TEST_SECRET"] = "canary"
    fresh = Zygote(PRISONER)
    try:
        fresh.start()
        child = fresh.spawn(memory_bytes=64 * MiB)
        assert "RUNVISOR_TEST_SECRET" not in ask(child, "dict(os.environ)")
        child.close()
    finally:
        del os.environ["RUNVISOR_TEST_SECRET"]
        fresh.close()


def test_it_holds_no_descriptor_but_its_own_four(child: Child) -> None:
    assert ask(child, "sorted(map(int, os.listdir('/proc/self/fd')))")[:4] == [0, 1, 2, 3]
    assert len(ask(child, "os.listdir('/proc/self/fd')")) == 5  # and the one that lists them


@pytest.mark.skipif(find_v1_parent("pids") is None, reason="no v1 hierarchy that counts processes")
def test_its_threads_are_counted_and_bounded(child: Child) -> None:
    parent = find_v1_parent("pids")
    assert parent is not None
    groups = Path(f"/proc/{child.pid}/cgroup").read_text().splitlines()
    own = next(line.split(":", 2)[2] for line in groups if line.split(":")[1] == "pids")
    group = Path("/sys/fs/cgroup/pids") / own.lstrip("/")
    assert (group / "pids.max").read_text().strip() == "128"
    do = (
        "import threading\nstop, started = threading.Event(), 0\n"
        "try:\n    while started < 500:\n        threading.Thread(target=stop.wait).start()\n        started += 1\n"
        "except RuntimeError:\n    pass\nstop.set()"
    )
    assert 100 < ask(child, "started", do) < 128


@needs("cpu cgroup")
@pytest.mark.skipif(find_v1_parent("cpu") is None, reason="no v1 hierarchy that bounds CPU time")
def test_it_is_held_to_its_share_of_cpu_time_from_the_start(child: Child) -> None:
    groups = Path(f"/proc/{child.pid}/cgroup").read_text().splitlines()
    own = next(line.split(":", 2)[2] for line in groups if "cpu" in line.split(":")[1].split(","))
    group = Path("/sys/fs/cgroup/cpu") / own.lstrip("/")
    assert (group / "cpu.cfs_quota_us").read_text() == (group / "cpu.cfs_period_us").read_text() == "100000\n"
    assert int((group.parent / "cpu.shares").read_text()) == 1024 * (os.cpu_count() or 1)


def test_an_engine_that_serves_many_is_not_held_to_one_core() -> None:
    engine = Zygote(replace(PRISONER, cores=None))
    engine.start()
    child = engine.spawn(memory_bytes=64 * MiB)
    try:
        assert "cpu cgroup" not in child.layers
        groups = Path(f"/proc/{child.pid}/cgroup").read_text().splitlines()
        assert not any("runvisor" in line for line in groups if "cpu" in line.split(":")[1].split(","))
    finally:
        child.close()
        engine.close()


@needs("memory cgroup")
def test_memory_beyond_its_limit_kills_it_and_says_so(child: Child) -> None:
    child.limit_memory(16 * MiB)
    child.channel.send({"do": "hog = bytearray(200 << 20)"})
    assert child.channel.receive() is None
    end = child.exit()
    assert end is not None
    assert end.oom_killed
    assert end.signal == signal.SIGKILL
    assert end.peak_memory_bytes is not None
    assert end.peak_memory_bytes > 16 * MiB


def test_what_it_used_is_known_also_when_it_was_killed_and_reaped(zygote: Zygote) -> None:
    child = zygote.spawn(memory_bytes=64 * MiB)
    try:
        ask(child, do="import time\nwhile time.process_time() < 0.2:\n    pass")
        child.kill()
        assert child.exit() is not None
        assert child.usage().cpu_s > 0.1
    finally:
        child.close()


def test_killing_it_is_seen_and_its_cgroup_goes(zygote: Zygote) -> None:
    child = zygote.spawn(memory_bytes=64 * MiB)
    child.kill()
    end = child.exit()
    assert end is not None
    assert end.signal == signal.SIGKILL
    child.close()


@needs("memory cgroup")
def test_one_that_has_ended_has_no_birth_even_if_its_number_is_anothers_by_then(child: Child) -> None:
    assert child.birth() == process_birth(child.pid) != ""
    child.kill()
    assert child.exit() is not None
    child.pid = os.getpid()  # the kernel gives out numbers again
    assert child.birth() == ""
    child.close()
    assert child.birth() == ""


def own_groups() -> set[Path]:
    """The memory cgroups of this process; other programs on this machine may make and remove theirs."""
    try:
        parent = find_hierarchy().parent
    except OSError:  # this user can make none
        return set()
    return set(parent.glob(f"runvisor-{os.getpid()}-*"))


def test_closing_the_zygote_leaves_nothing_behind() -> None:
    before = own_groups()
    zygote = Zygote(PRISONER)
    zygote.start()
    children = [zygote.spawn(memory_bytes=64 * MiB) for _ in range(3)]
    pidfds = [os.pidfd_open(child.pid) for child in children]
    zygote.close()
    for pidfd in pidfds:
        with pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        os.close(pidfd)
    assert own_groups() <= before


def test_children_die_with_a_killed_zygote(zygote: Zygote) -> None:
    doomed = Zygote(PRISONER)
    doomed.start()
    child = doomed.spawn(memory_bytes=64 * MiB)
    assert doomed._process is not None
    doomed._process.kill()
    assert child.channel.receive() is None  # its end of the channel closed: it is dead
    assert child.exit() is None
    doomed.close()
    with pytest.raises(SpawnFailed):
        doomed.spawn(memory_bytes=64 * MiB)


@needs("own uid")  # else the process with this id is not the one that forks
def test_a_child_that_comes_when_nobody_waits_any_longer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a zygote may be late; what it makes then must not stay for ever."""
    late = Zygote(PRISONER)
    late.start()
    try:
        stop(late.pid)
        monkeypatch.setattr("runvisor.actors.jail.zygote.READY_TIMEOUT_S", 0.1)
        with pytest.raises(SpawnFailed, match="did not answer"):
            late.spawn(memory_bytes=64 * MiB)
        monkeypatch.undo()
        os.kill(late.pid, signal.SIGCONT)
        after = late.spawn(memory_bytes=64 * MiB)
        deadline = time.monotonic() + 20
        while list(late._children.values()) != [after]:
            assert time.monotonic() < deadline, f"{late._children} live, {late._unwanted} are unwanted"
            time.sleep(0.005)
        after.close()
    finally:
        late.close()


def test_closing_a_child_from_several_threads_closes_nothing_twice(zygote: Zygote) -> None:
    for _ in range(5):
        child = zygote.spawn(memory_bytes=64 * MiB)
        closed: list[int] = []
        child.at_close(lambda seen=closed: seen.append(1))  # type: ignore[misc]
        together = threading.Barrier(8)

        def close(child: Child = child, together: threading.Barrier = together) -> None:
            together.wait()
            child.close()

        threads = [threading.Thread(target=close) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert closed == [1]


def test_a_guest_module_that_does_not_import_is_a_clear_error() -> None:
    zygote = Zygote(JailSpec("broken", "no.such.module"))
    with pytest.raises(SpawnFailed, match="No module named"):
        zygote.start()
    zygote.close()


@needs("memory cgroup")
@pytest.mark.parametrize("has_unread", [False, True], ids=["", "with words of its zygote unread"])
def test_a_killed_host_leaves_no_process_and_no_cgroup(has_unread: bool) -> None:
    parents = [find_hierarchy().parent, *filter(None, [find_v1_parent("pids"), find_v1_parent("cpu")])]
    program = (
        "import signal; from runvisor.actors.jail.zygote import Zygote\n"
        "from runvisor.actors.jail.spec import JailSpec\n"
        f"z = Zygote(JailSpec('prisoner', 'actors.jail.prisoner', import_from=({TESTS_FOLDER!r},))); z.start()\n"
        "c = z.spawn(memory_bytes=1 << 26); print(c.pid, z._process.pid, flush=True); signal.pause()\n"
    )
    host = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    child, zygote = (int(pid) for pid in host.stdout.readline().split())
    pidfds = [os.pidfd_open(pid) for pid in (child, zygote)]
    if has_unread:
        stop(host.pid)
        os.kill(child, signal.SIGKILL)
        slots = [slot for parent in parents for slot in parent.glob(f"runvisor-{host.pid}-*/0")]
        deadline = time.monotonic() + 20
        while any(slot.exists() for slot in slots):  # they go when the zygote has said that the child went
            assert time.monotonic() < deadline
            time.sleep(0.005)
    host.kill()
    host.wait()
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], 10)[0], "a process outlived its host"
        os.close(pidfd)
    assert [group for parent in parents for group in parent.glob(f"runvisor-{host.pid}-*")] == []
