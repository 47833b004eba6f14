"""The threads that an observation follows, as /proc shows them. See proc(5)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from runvisor.policies.errors import ConfigError, SpawnFailed

_PROC: Final = Path("/proc")
_FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"
"""PROC_PID_INIT_INO of include/linux/proc_ns.h."""
_FLAGS: Final = 6
"""Place of the kernel's flags behind a thread's name."""
_PF_EXITING: Final = 4
"""Set before the tracepoint of the exit, and kept; see include/linux/sched.h."""


def check_sight() -> None:
    """Check that process ids mean the same here as in the kernel's tracepoints.

    Raises:
        SpawnFailed: This process lives in a pid namespace of its own.
    """
    if (_PROC / "self/ns/pid").readlink().name != _FIRST_PID_NAMESPACE:
        raise SpawnFailed(
            "process ids in this container are not the kernel's own", "ebpf/observe", "run it with docker --pid=host"
        )


def threads_of(pid: int, *, follow: bool) -> frozenset[int]:
    """Return the ids of a process's threads, and of its descendants' if asked; empty if it is gone.

    Threads that are ending are left out: nothing would tell when their numbers become others'.

    Args:
        pid: The process, not a thread of one.
        follow: Whether descendants count.
    """
    processes = [pid]
    if follow:
        children = _children()
        for process in processes:  # grows while it is walked
            processes += children.get(process, ())
    return frozenset(thread for process in processes for thread in _threads(process))


def check_process(pid: int) -> None:
    """Check that a process runs.

    Raises:
        ConfigError: It does not, or is a thread of another.
    """
    status = _status(pid)
    if not status or status.get("State", "Z").startswith(("Z", "X")):
        raise ConfigError(f"no process {pid} is running", "pid", "give the number of a running process")
    if status.get("Tgid") != str(pid):
        raise ConfigError(
            f"{pid} is a thread of process {status.get('Tgid')}", "pid", f"observe {status.get('Tgid')} instead"
        )


def _status(pid: int) -> dict[str, str]:
    try:
        lines = (_PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _threads(pid: int) -> list[int]:
    try:
        return [int(entry.name) for entry in (_PROC / str(pid) / "task").iterdir() if not _is_ending(entry)]
    except OSError:
        return []


def _is_ending(thread: Path) -> bool:
    """Whether a thread is past the start of its exit, or is gone; a first thread may stay so for hours."""
    try:
        stat = (thread / "stat").read_text(errors="replace")
    except OSError:
        return True
    return bool(int(stat.rpartition(")")[2].split()[_FLAGS]) & _PF_EXITING)


def _children() -> dict[int, list[int]]:
    """Return the children of every process."""
    found: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text(errors="replace")
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])  # a name may hold spaces and brackets
            found.setdefault(parent, []).append(int(entry.name))
    return found
