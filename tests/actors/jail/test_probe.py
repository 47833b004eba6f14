"""What is said on a machine that cannot keep a jail: the truth, and the way out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.jail import cgroups
from runvisor.actors.jail.spec import LAYERS, JailSpec
from runvisor.actors.jail.standing import gaps
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies.errors import SpawnFailed
from tests.ordinary_user import TESTS, run_as_ordinary_user

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

LOOK_AROUND = """
import json
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies.permissions import MiB
probe = probe_jail("python")
zygote = Zygote(JailSpec("prisoner", "actors.jail.prisoner", import_from=(TESTS,)))
zygote.start()
child = zygote.spawn(memory_bytes=64 * MiB)
child.limit_memory(32 * MiB)
answers = {}
for value in QUESTIONS:
    child.channel.send({"value": value})
    answer = child.channel.receive()
    answers[value] = answer.get("error", answer.get("value"))
print(json.dumps([probe.available, probe.detail, probe.remedy, child.layers, answers]))
child.close()
zygote.close()
"""
QUESTIONS = [
    "open('/etc/shadow').read()",
    "open('/proc/%d/environ' % os.getppid()).read()",
    "__import__('socket').socket()",
    "os.fork()",
    "os.setuid(0)",
    "open('/usr/x', 'w')",
    "len(open('scratch', 'w').write('x' * 10) * 'x')",
    "len(bytearray(200 << 20))",
    "os.kill(os.getppid() or 2, 0)",
]


def look_around(*, user_namespaces: bool) -> list[Any]:
    program = LOOK_AROUND.replace("TESTS", repr(str(TESTS))).replace("QUESTIONS", repr(QUESTIONS))
    ran = run_as_ordinary_user(["-c", program], user_namespaces=user_namespaces)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: list[Any] = json.loads(ran.stdout)
    return found


@needs_root
@pytest.mark.parametrize("user_namespaces", [True, False])
def test_an_ordinary_user_gets_a_jail_that_holds(user_namespaces: bool) -> None:
    available, _, _, layers, answers = look_around(user_namespaces=user_namespaces)
    assert available
    assert {"seccomp allow-list", "no_new_privs", "rlimits", "memory rlimit", "no capabilities"} <= set(layers)
    assert answers.pop("len(open('scratch', 'w').write('x' * 10) * 'x')") == 10
    assert answers.pop("len(bytearray(200 << 20))") == "MemoryError"
    refusals = {"PermissionError", "FileNotFoundError", "OSError", "ProcessLookupError"}
    assert {value: answer for value, answer in answers.items() if answer not in refusals} == {}


@needs_root
def test_with_user_namespaces_nothing_that_untrusted_code_needs_is_missing() -> None:
    _, detail, remedy, layers, _ = look_around(user_namespaces=True)
    assert "as an ordinary user" in detail
    assert "cgroup" in remedy
    assert gaps(frozenset(layers)) == ()
    assert set(LAYERS) - set(layers) <= {"own uid", "memory cgroup", "cpu cgroup"}


@needs_root
def test_without_them_it_says_that_it_is_too_weak_for_untrusted_code_and_what_to_do() -> None:
    _, detail, remedy, layers, _ = look_around(user_namespaces=False)
    assert "no namespaces" in detail
    assert "too weak for untrusted code" in detail
    assert "user namespaces" in remedy
    assert "pid namespace" in gaps(frozenset(layers))


def test_a_cgroup_mount_without_a_memory_controller_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("")
    with pytest.raises(OSError, match="no writable memory cgroup"):
        cgroups.find_hierarchy(tmp_path / "missing", "0::/\n")


@pytest.mark.skipif(not (cgroups.MOUNT / "unified").is_dir(), reason="this machine has no hybrid cgroup mount")
def test_a_real_v2_tree_without_the_memory_controller_is_refused() -> None:
    unified = cgroups.MOUNT / "unified"
    if "memory" in (unified / "cgroup.controllers").read_text():
        pytest.skip("its memory controller is on v2")
    with pytest.raises(OSError, match="no writable memory cgroup"):
        cgroups.find_hierarchy(unified, "0::/\n")
    assert not list(unified.glob(f"runvisor-probe-{os.getpid()}-*"))


@pytest.mark.parametrize(
    ("version", "limit", "peak"),
    [(1, "memory.limit_in_bytes", "memory.max_usage_in_bytes"), (2, "memory.max", "memory.peak")],
)
def test_each_version_has_its_file_names(version: int, limit: str, peak: str, tmp_path: Path) -> None:
    hierarchy = cgroups.Hierarchy(2 if version == 2 else 1, tmp_path)
    assert (hierarchy.limit_file, hierarchy.peak_file) == (limit, peak)
    (tmp_path / peak).write_text("4096\n")
    slot = cgroups.Slot(hierarchy, tmp_path)
    slot.limit_memory(1 << 20, final=True)
    assert (tmp_path / limit).read_text() == str(1 << 20)
    assert slot.peak_bytes() == 4096


def test_on_v2_one_group_bounds_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "find_hierarchy", lambda: cgroups.Hierarchy(2, tmp_path))
    group = cgroups.PoolGroup("runvisor-test", 0.5)
    try:
        (tree,) = group.trees
        assert tree.files == (("pids.max", "128"), ("cpu.max", "50000 100000"))
        assert group.bounds_cpu
        assert (tree.path / "cpu.weight").read_text() == str(100 * (os.cpu_count() or 1))
    finally:
        for tree in group.trees:
            os.close(tree.fd)
            os.close(tree.parent_fd)


def test_a_zygote_that_was_never_started_cannot_spawn_and_closes_quietly() -> None:
    zygote = Zygote(JailSpec("idle", "json"))
    with pytest.raises(SpawnFailed):
        zygote.spawn(memory_bytes=1 << 20)
    zygote.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make cgroups")
def test_groups_of_dead_hosts_are_swept_and_others_stay() -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    parent = cgroups.find_hierarchy().parent
    names = {"dead": ended.pid, "alive": os.getpid(), "new": ended.pid}
    groups = {kind: parent / cgroups.group_name(pid, 999, kind) for kind, pid in names.items()}
    try:
        for kind, group in groups.items():
            (group / "0").mkdir(parents=True)
            if kind != "new":
                os.utime(group, (0, 0))
        cgroups.sweep(parent)
        assert {kind: group.exists() for kind, group in groups.items()} == {"dead": False, "alive": True, "new": True}
    finally:
        for group in groups.values():
            if group.exists():
                (group / "0").rmdir()
                group.rmdir()
