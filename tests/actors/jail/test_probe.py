"""What is said on a machine that cannot keep a jail: the truth, and the way out of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runvisor.actors.jail import cgroups
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies.errors import SpawnFailed

AS_NOBODY = (
    "import os\n"
    "from runvisor.actors.jail.probe import probe_jail\n"
    "from runvisor.actors.jail.zygote import Zygote\n"
    "from runvisor.actors.jail.spec import JailSpec\n"
    "from runvisor.policies.errors import SpawnFailed\n"
    "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
    "probe = probe_jail('python'); print(probe.available, '|', probe.detail, '|', probe.remedy)\n"
    "try:\n    Zygote(JailSpec('x', 'json')).start()\n"
    "except SpawnFailed as error:\n    print(error)\n"
)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_root_it_refuses_and_says_how_to_get_it() -> None:
    ran = subprocess.run([sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, check=True)
    probe, refusal = ran.stdout.splitlines()
    assert probe.startswith("False | ")
    assert "root" in probe.rpartition("|")[2]
    assert "root" in refusal


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
    assert not list(unified.glob("runvisor-*"))


@pytest.mark.parametrize(
    ("version", "limit", "peak"),
    [(1, "memory.limit_in_bytes", "memory.max_usage_in_bytes"), (2, "memory.max", "memory.peak")],
)
def test_each_version_has_its_file_names(version: int, limit: str, peak: str, tmp_path: Path) -> None:
    hierarchy = cgroups.Hierarchy(2 if version == 2 else 1, tmp_path)
    assert (hierarchy.limit_file, hierarchy.peak_file) == (limit, peak)
    (tmp_path / peak).write_text("4096\n")
    slot = cgroups.Slot(hierarchy, tmp_path)
    slot.limit_memory(1 << 20)
    assert (tmp_path / limit).read_text() == str(1 << 20)
    assert slot.peak_bytes() == 4096


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
