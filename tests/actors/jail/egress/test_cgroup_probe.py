"""What is said of the kernel egress filter on a machine that cannot have it, and how to get it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.jail import cgroups
from runvisor.actors.jail.egress import cgroup_probe
from runvisor.actors.jail.egress.cgroup_filter import FilteredGroup
from runvisor.actors.jail.egress.cgroup_probe import find_obstacle


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    find_obstacle.cache_clear()
    yield
    find_obstacle.cache_clear()


def test_no_kernel_refuses_the_programs_themselves() -> None:
    """Elsewhere tests are left out where there is an obstacle; this one must not be."""
    assert "verifier" not in find_obstacle()[0]


def test_without_cgroups_of_version_2_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "find_v2_parent", lambda: None)
    obstacle, remedy = find_obstacle()
    assert "version 2" in obstacle
    assert "/sys/fs/cgroup" in remedy


@pytest.mark.parametrize(
    ("number", "obstacle", "remedy"),
    [
        (errno.EPERM, "bpf(2) is refused", "CAP_BPF"),
        (errno.ENOPROTOOPT, "Protocol not available", "Linux 5.14"),
    ],
)
def test_what_the_kernel_refuses_is_named_with_a_remedy(
    number: int, obstacle: str, remedy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(name: str, parent: Path) -> FilteredGroup:
        raise OSError(number, "no")

    monkeypatch.setattr(cgroups, "find_v2_parent", lambda: tmp_path)
    monkeypatch.setattr(cgroup_probe.FilteredGroup, "make", refuse)
    said = find_obstacle()
    assert obstacle in said[0]
    assert remedy in said[1]
    assert "\n" not in "".join(said)


def test_groups_are_made_below_our_own_or_else_at_the_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "service"
    monkeypatch.setattr(cgroups, "unified_mount", lambda: tmp_path)
    monkeypatch.setattr(cgroups, "unified_parent", lambda: own)
    assert cgroups.find_v2_parent() == tmp_path
    own.mkdir()
    assert cgroups.find_v2_parent() == own
    monkeypatch.setattr(cgroups, "unified_mount", lambda: None)
    monkeypatch.setattr(cgroups, "unified_parent", lambda: None)
    assert cgroups.find_v2_parent() is None
