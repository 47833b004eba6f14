"""A child is known by a cgroup that nobody shares with it, or not at all."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.jail.unified import identity_of, unified_parent


@pytest.fixture
def group() -> Iterator[Path]:
    parent = unified_parent()
    if parent is None or os.geteuid() or not os.access(parent, os.W_OK):
        pytest.skip("needs root and a cgroup v2 hierarchy")
    made = parent / f"runvisor-{os.getpid()}-0-test"
    made.mkdir()
    yield made
    made.rmdir()


@pytest.mark.root
def test_only_a_group_of_its_own_is_an_identity(group: Path) -> None:
    with (
        subprocess.Popen(["sleep", "60"]) as one,
        subprocess.Popen(["sleep", "60"]) as other,
    ):
        try:
            assert identity_of(one.pid) is None
            (group / "cgroup.procs").write_text(str(one.pid))
            assert identity_of(one.pid) == group.stat().st_ino
            (group / "cgroup.procs").write_text(str(other.pid))
            assert identity_of(one.pid) is None
        finally:
            one.kill()
            other.kill()


def test_a_process_that_is_not_there_has_none() -> None:
    assert identity_of(1 << 22) is None
