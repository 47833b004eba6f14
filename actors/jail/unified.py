"""By what the kernel knows a sandbox child: the id of its own cgroup in the v2 hierarchy.

Every thread and process in it has it, whatever they do; it is the same in all
namespaces, and no later group gets it again. See bpf_get_current_cgroup_id in
bpf-helpers(7), and cgroups(7) on hosts that have v2 beside v1 controllers.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def unified_mount() -> Path | None:
    """Return where the v2 hierarchy is mounted, or None."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None


def unified_parent() -> Path | None:
    """Return where this process's children may have groups in the v2 hierarchy, or None."""
    mount = unified_mount()
    path = unified_path("self")
    if mount is None or not path or "/../" in path:
        return None
    return mount / path.lstrip("/")


def unified_path(pid: int | str) -> str:
    """Return a process's group in the v2 hierarchy; empty if it has none.

    Raises:
        OSError: There is no such process.
    """
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    return ""


def identity_of(pid: int) -> int | None:
    """Return the id of the group that a sealed child has for itself, or None if it has none.

    Args:
        pid: The child, as this process sees it.
    """
    mount = unified_mount()
    try:
        path = unified_path(pid)
        if mount is None or path in ("", "/") or "/../" in path:
            return None
        group = mount / path.lstrip("/")
        if (group / "cgroup.procs").read_text().split() != [str(pid)]:
            return None  # a group that others are in too would mix executions
        return group.stat().st_ino
    except OSError:
        return None
