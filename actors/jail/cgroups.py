"""One cgroup per instance for memory, processes and CPU, on cgroup v1 or v2, whichever this process may write.

The host side makes the pool's group; the zygote makes and removes a slot in it
per child, through a directory descriptor, so that slots vanish even when the
pool actor is killed. Bounds that no grant changes are written while the child
is made, ahead of its task. Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html,
.../cgroup-v1/memory.html and https://docs.kernel.org/scheduler/sched-bwc.html.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from runvisor.actors.jail.spec import CPU_CGROUP, MEMORY_CGROUP
from runvisor.actors.jail.unified import unified_mount, unified_parent
from runvisor.policies.permissions import MiB

MOUNT: Final = Path("/sys/fs/cgroup")
_REMOVE_TIMEOUT_S: Final = 2.0
_SETTLED_S: Final = 5.0
MAX_TASKS: Final = 128
"""Threads and processes together, of one instance."""
CPU_PERIOD_US: Final = 100_000
"""An instance that has used up its share waits for the end of this period."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A place where this process may make memory cgroups."""

    version: Literal[1, 2]
    parent: Path

    @property
    def limit_file(self) -> str:
        """Name of the file that holds the memory limit."""
        return "memory.max" if self.version == 2 else "memory.limit_in_bytes"

    @property
    def swap_file(self) -> str:
        """Name of the file that bounds swap."""
        return "memory.swap.max" if self.version == 2 else "memory.memsw.limit_in_bytes"

    @property
    def peak_file(self) -> str:
        """Name of the file that holds the peak."""
        return "memory.peak" if self.version == 2 else "memory.max_usage_in_bytes"

    @property
    def usage_file(self) -> str:
        """Name of the file that holds the present usage."""
        return "memory.current" if self.version == 2 else "memory.usage_in_bytes"


def find_hierarchy(mount: Path = MOUNT, membership: str | None = None) -> Hierarchy:
    """Find where memory cgroups can be made, by making one.

    Args:
        mount: Where cgroups are mounted.
        membership: Text of /proc/self/cgroup; None reads it.

    Raises:
        OSError: Nowhere; the message says what was tried.
    """
    text = Path("/proc/self/cgroup").read_text() if membership is None else membership
    own = {controller: path for line in text.splitlines() for controller, path in [_membership(line)]}
    tried: list[str] = []
    for place in _candidates(mount, own):
        try:
            _try(place)
        except OSError as error:
            tried.append(f"{place.parent}: {error.strerror or error}")
            continue
        return place
    raise OSError("no writable memory cgroup" + (f" ({'; '.join(tried)})" if tried else ""))


def find_v1_parent(controller: str, mount: Path = MOUNT, membership: str | None = None) -> Path | None:
    """Find where v1 groups with another controller can be made, by making one; None where they cannot.

    On v2 one group does it all, so nothing more is needed.

    Args:
        controller: ``pids`` or ``cpu``.
        mount: Where cgroups are mounted.
        membership: Text of /proc/self/cgroup; None reads it.
    """
    text = Path("/proc/self/cgroup").read_text() if membership is None else membership
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        return _first_writable(mount / controller / path.lstrip("/"), mount / controller)
    return None


def find_v2_parent() -> Path | None:
    """Find where v2 groups without a controller can be made, by making one; None where they cannot."""
    return _first_writable(*filter(None, (unified_parent(), unified_mount())))


def _first_writable(*parents: Path) -> Path | None:
    for parent in dict.fromkeys(parents):
        probe = parent / f"runvisor-probe-{os.getpid()}-{time.monotonic_ns()}"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError:
            continue
        return parent
    return None


def can_bound_cpu() -> bool:
    """Say whether a group made here can be held to a share of CPU time."""
    try:
        hierarchy = find_hierarchy()
    except OSError:
        return False
    if hierarchy.version == 2:
        return "cpu" in (hierarchy.parent / "cgroup.subtree_control").read_text().split()
    return find_v1_parent("cpu") is not None


def cpu_files(cores: float, version: Literal[1, 2]) -> tuple[tuple[str, str], ...]:
    """Return what a slot is told so that it uses no more than so many cores at once.

    Example:
        >>> cpu_files(1.5, 2), cpu_files(0.5, 1)
        ((('cpu.max', '150000 100000'),), (('cpu.cfs_period_us', '100000'), ('cpu.cfs_quota_us', '50000')))
    """
    quota_us = round(cores * CPU_PERIOD_US)
    if version == 2:
        return (("cpu.max", f"{quota_us} {CPU_PERIOD_US}"),)
    return (("cpu.cfs_period_us", str(CPU_PERIOD_US)), ("cpu.cfs_quota_us", str(quota_us)))


def _membership(line: str) -> tuple[str, str]:
    _, controllers, path = line.split(":", 2)
    return ("memory" if "memory" in controllers.split(",") else controllers), path.lstrip("/")


def _candidates(mount: Path, own: dict[str, str]) -> list[Hierarchy]:
    places: list[Hierarchy] = []
    if (mount / "cgroup.controllers").exists():
        # v2 forbids members beside child groups that use a controller, so a sibling of
        # our own group comes first (a delegated one), then the root group.
        home = mount / own.get("", "")
        beside = home.parent if home != mount else mount
        places += [Hierarchy(2, place) for place in dict.fromkeys((beside, mount, home))]
    memory = mount / "memory"
    if memory.is_dir() and "memory" in own:
        places += [Hierarchy(1, place) for place in dict.fromkeys((memory / own["memory"], memory))]
    return places


def _try(place: Hierarchy) -> None:
    if place.version == 2:
        with contextlib.suppress(OSError):
            (place.parent / "cgroup.subtree_control").write_text("+memory +pids")
        with contextlib.suppress(OSError):
            (place.parent / "cgroup.subtree_control").write_text("+cpu")
    probe = place.parent / f"runvisor-probe-{os.getpid()}-{time.monotonic_ns()}"
    probe.mkdir()
    try:
        (probe / place.limit_file).write_text(str(1 << 30))
    finally:
        probe.rmdir()


def group_name(pid: int, number: int, name: str) -> str:
    """Return the name of a pool's group; it tells whose it is."""
    return f"runvisor-{pid}-{number}-{name}"


def sweep(parent: Path) -> None:
    """Remove the groups of hosts that are dead: one whose zygote was killed with it is left behind.

    A group that holds a process, or changed a moment ago, is somebody's: the
    host may live in a pid namespace that this process does not see.
    """
    for group in parent.glob("runvisor-*-*-*"):
        pid = group.name.split("-")[1]
        if not pid.isdigit() or Path("/proc", pid).exists():
            continue
        with contextlib.suppress(OSError):
            slots = [entry for entry in group.iterdir() if entry.is_dir()]
            if time.time() - group.stat().st_mtime < _SETTLED_S:
                continue
            if any((folder / "cgroup.procs").read_text() for folder in (group, *slots)):
                continue
            for folder in (*slots, group):
                folder.rmdir()


@dataclass(frozen=True, slots=True)
class Tree:
    """One hierarchy's part of a pool's group."""

    path: Path
    fd: int
    parent_fd: int
    files: tuple[tuple[str, str], ...] = ()
    """What each slot in it is told when it is made: file and text."""
    layer: str = MEMORY_CGROUP
    """The layer by which a child joins it."""

    @classmethod
    def make(cls, path: Path, files: tuple[tuple[str, str], ...] = (), layer: str = MEMORY_CGROUP) -> Tree:
        """Make the group's folder and open it."""
        sweep(path.parent)
        path.mkdir()
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return cls(path, os.open(path, flags), os.open(path.parent, flags), files, layer)


class PoolGroup:
    """The cgroup of one zygote; its slots are one level below.

    Args:
        name: Unique on this machine.
        cores: How many cores' worth of CPU time a slot may use at once; None is no bound.
        identified: Slots are to be groups of the v2 hierarchy too, where the controllers are v1's.

    Raises:
        OSError: No memory cgroup can be made here.
    """

    def __init__(self, name: str, cores: float | None = None, *, identified: bool = False) -> None:
        self.name = name
        self.hierarchy = find_hierarchy()
        self.bounds_cpu = False
        """Its slots are held to ``cores``."""
        bounded = (("pids.max", str(MAX_TASKS)),)
        memory = Tree.make(self.hierarchy.parent / name)
        self.trees = [memory]
        if self.hierarchy.version == 2:
            self._divide_v2(memory, {"pids": bounded, "cpu": cpu_files(cores, 2) if cores is not None else ()})
            return
        if (memory.path / "memory.use_hierarchy").exists():
            with contextlib.suppress(OSError):  # already the only mode on recent kernels
                (memory.path / "memory.use_hierarchy").write_text("1")
        if (pids := find_v1_parent("pids")) is not None:
            self.trees.append(Tree.make(pids / name, bounded))
        if cores is not None and (cpu := find_v1_parent("cpu")) is not None:
            self.trees.append(Tree.make(cpu / name, cpu_files(cores, 1), CPU_CGROUP))
            self.bounds_cpu = True
            self._weigh(cpu / name / "cpu.shares", 1024, 262_144)
        if identified and (unified := unified_parent()) is not None:
            with contextlib.suppress(OSError):  # then nothing knows the children by it, and says so
                self.trees.append(Tree.make(unified / name))

    def _divide_v2(self, tree: Tree, files: Mapping[str, tuple[tuple[str, str], ...]]) -> None:
        """Give the slots of the one tree that there is on v2 their controllers."""
        (tree.path / "cgroup.subtree_control").write_text("+memory")
        for controller, told in files.items():
            if not told:
                continue
            with contextlib.suppress(OSError):
                (tree.path / "cgroup.subtree_control").write_text(f"+{controller}")
                tree = replace(tree, files=(*tree.files, *told))
                self.bounds_cpu |= controller == "cpu"
        if self.bounds_cpu:
            self._weigh(tree.path / "cpu.weight", 100, 10_000)
        self.trees = [tree]

    @staticmethod
    def _weigh(file: Path, one: int, maximum: int) -> None:
        """Let the slots together weigh as much as one process on each core.

        A group's weight is divided among the cores that it runs on: with that of
        one process, the slots of a large machine would hardly run beside others.
        """
        with contextlib.suppress(OSError):  # the kernel's own weight only makes them slower
            file.write_text(str(min(maximum, one * (os.cpu_count() or 1))))

    @property
    def v2_tree(self) -> Tree | None:
        """Its part in the v2 hierarchy, if it has one; each slot is a group there as well."""
        mount = unified_mount()
        return next((tree for tree in self.trees if mount is not None and tree.path.is_relative_to(mount)), None)

    def slot(self, name: str) -> Slot:
        """Return the slot of one child, which the zygote has made."""
        return Slot(self.hierarchy, self.trees[0].path / name)

    def close(self) -> None:
        """Remove the group; its slots' processes must be dead. May be called twice."""
        trees, self.trees = self.trees, []
        for tree in trees:
            os.close(tree.fd)
            os.close(tree.parent_fd)
            if not tree.path.exists():  # the zygote's last act is to remove it
                continue
            deadline = time.monotonic() + _REMOVE_TIMEOUT_S
            for folder in [*(entry for entry in tree.path.iterdir() if entry.is_dir()), tree.path]:
                remove(folder, deadline)


class Slot:
    """The memory cgroup of one child."""

    can_rise = True
    slack_bytes = 16 * MiB

    def __init__(self, hierarchy: Hierarchy, path: Path) -> None:
        self._hierarchy = hierarchy
        self.path = path
        self._peak_fd: int | None = None

    def limit_memory(self, limit_bytes: int, *, final: bool) -> None:
        """Bound memory, and swap with it where swap is accounted; may be called again, final or not."""
        del final
        h = self._hierarchy
        # On v1 the limit with swap may never be below the one without: it goes first when
        # both rise and last when both sink, and the write that is out of turn fails.
        self._bound_swap(limit_bytes)
        (self.path / h.limit_file).write_text(str(limit_bytes))
        self._bound_swap(limit_bytes)

    def _bound_swap(self, limit_bytes: int) -> None:
        text = "0" if self._hierarchy.version == 2 else str(limit_bytes)
        with contextlib.suppress(OSError):  # also: swap is not accounted here
            (self.path / self._hierarchy.swap_file).write_text(text)

    def current_bytes(self) -> int:
        """Return what it uses now."""
        return int((self.path / self._hierarchy.usage_file).read_text())

    def peak_bytes(self) -> int | None:
        """Return its peak, or None on a kernel that keeps none.

        The file stays open between calls: opening it costs ten times the reading.
        """
        try:
            if self._peak_fd is None:
                self._peak_fd = os.open(self.path / self._hierarchy.peak_file, os.O_RDONLY | os.O_CLOEXEC)
            return int(os.pread(self._peak_fd, 32, 0))
        except OSError:
            return None

    def peak_at_end(self, resident_bytes: int) -> None:
        """Return None: what was resident is not all that counts."""
        del resident_bytes

    def close(self) -> None:
        """Give back what it holds open; closing twice is fine."""
        if self._peak_fd is not None:
            os.close(self._peak_fd)
            self._peak_fd = None


def count_oom_kills(events: str) -> int:
    r"""Read how many processes the kernel killed for want of memory.

    Args:
        events: Text of ``memory.events`` (v2) or ``memory.oom_control`` (v1).

    Example:
        >>> count_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
        2
    """
    return next((int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill ")), 0)


def remove(path: Path, deadline: float) -> None:
    """Remove an empty group, waiting out the moment in which its last process is still counted."""
    while True:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() >= deadline:
                return
            time.sleep(0.005)
        else:
            return
