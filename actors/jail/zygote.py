"""The host's side of a zygote: start it, have it spawn sealed children, end it."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail.cgroups import PoolGroup, group_name
from runvisor.actors.jail.child import READY_TIMEOUT_S, Child, process_of
from runvisor.actors.jail.egress.cgroup_filter import FilteredGroup, netns_cookie
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.mounts import SCRATCH, View
from runvisor.actors.jail.own_process import OwnProcess
from runvisor.actors.jail.process_limit import ProcessLimit
from runvisor.actors.jail.seccomp import FilterKind
from runvisor.actors.jail.spec import CPU_CGROUP, EGRESS_FILTER, SECCOMP, JailSpec
from runvisor.actors.jail.standing import find_standing, layers_for
from runvisor.actors.jail.uids import UIDS
from runvisor.actors.jail.unified import identity_of
from runvisor.actors.jail.zygote_process import Charter, TreeEnds
from runvisor.policies.errors import ProtocolError, SpawnFailed, WorkerCrashed

_MODULE: Final = "runvisor.actors.jail.zygote_process"
_ENVIRONMENT: Final = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "MALLOC_ARENA_MAX": "2",  # each reserves 64 MiB, which the address space limit counts
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "agg",
    "MPLCONFIGDIR": "/tmp",
}
"""All that a zygote's guests see of an environment: nothing of ours."""

_sequence = itertools.count()


class Zygote:
    """A preloaded process that forks sealed children.

    Started by subprocess with a clean environment. When the host process dies,
    the zygote and all its children die. How strong the children's jail is
    depends on what this user may do: see `layers`.

    Args:
        spec: What the children are.
        identified: Each child is to have a cgroup v2 of its own, by which the kernel's programs know it.
    """

    def __init__(self, spec: JailSpec, *, identified: bool = False) -> None:
        self.spec = spec
        self.identified = identified
        self._process: OwnProcess | None = None
        self._group: PoolGroup | None = None
        self._filtered: FilteredGroup | None = None
        self._has_tried_to_filter = False
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._children: dict[int, Child] = {}
        self._spawned: dict[int, tuple[threading.Event, list[Child]]] = {}
        self._pending: dict[int, tuple[int, str]] = {}
        self._unwanted: set[int] = set()
        """Children that came when nobody waited for them any longer."""
        self.layers: frozenset[str] = frozenset()
        self._alive = False
        self._has_died = False
        self._on_death: Callable[[], None] | None = None

    def start(self, timeout_s: float = 60.0) -> None:
        """Start it and wait until it has preloaded.

        Raises:
            SpawnFailed: It cannot run here; the message says what is missing.
        """
        self._group = _pool_group(self.spec, identified=self.identified)
        self.layers = layers_for(
            self.spec,
            find_standing(),
            memory_cgroup=self._group is not None,
            cpu_cgroup=self._group is not None and self._group.bounds_cpu,
        )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control = FrameSocket(ours)
        trees = self._group.trees if self._group is not None else []
        charter = Charter(
            self.spec,
            self.layers,
            theirs.fileno(),
            group=self._group.name if self._group is not None else "",
            trees=tuple(TreeEnds(tree.fd, tree.parent_fd, tree.files, tree.layer) for tree in trees),
        )
        fds = [charter.control_fd, *(fd for tree in trees for fd in (tree.fd, tree.parent_fd))]
        self._process = OwnProcess(_MODULE, [charter.to_json()], fds=fds, environment=_ENVIRONMENT)
        theirs.close()
        try:
            self._process.wait_ready(self._control, f"{self.spec.name} zygote", "jail", timeout_s)
        except SpawnFailed:
            self.close()
            raise
        self._alive = True
        threading.Thread(target=self._read, name=f"zygote-{self.spec.name}", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it can spawn."""
        return self._alive

    def on_death(self, act: Callable[[], None]) -> None:
        """Have something done when it ends without being closed; at once, if it has.

        It is done before anybody is told of a child's end or that there are no
        more: who does not want such answers can stop them in time.
        """
        with self._lock:
            self._on_death = act
            has_died = self._has_died
        if has_died:
            act()

    @property
    def pid(self) -> int:
        """The process that forks, once it is started."""
        assert self._process is not None
        return self._process.pid

    def spawn(
        self,
        *,
        memory_bytes: int,
        disk_bytes: int | None = None,
        view: View | None = None,
        bound: Sequence[int] = (),
        network: NetworkPlan | None = None,
        folder: str = "",
    ) -> Child:
        """Return a new child, sealed and waiting for its task.

        Args:
            memory_bytes: Its first memory limit, beyond its warm state.
            disk_bytes: Size of its scratch; None is the spec's.
            view: What it sees beside what all see; None is nothing.
            bound: A detached mount for each of the view's bound places; they stay the caller's.
            network: The ports that it is to listen on for the broker; its listeners come with it.
            folder: Where it starts, if its view has that place; empty is its scratch.

        Raises:
            SpawnFailed: It could not be made; the zygote may be dead (see `alive`).
        """
        number = next(self._numbers)
        done: tuple[threading.Event, list[Child]] = (threading.Event(), [])
        with self._lock:
            if not self._alive:
                raise SpawnFailed(f"the {self.spec.name} zygote is not running", "jail")
            uid = UIDS.take()
            scratch = self._make_scratch(uid)
            filtered = self._filtered_group() if network is not None else None
            self._spawned[number] = done
            self._pending[number] = (uid, scratch)
            with contextlib.suppress(OSError):  # it has died, which the reader is about to say
                self._control.send(
                    {
                        "op": "spawn",
                        "child": number,
                        "uid": uid,
                        "scratch_bytes": disk_bytes or self.spec.scratch_bytes,
                        "scratch": scratch or SCRATCH,
                        "view": None if view is None else {"bound": view.bound, "staged": view.staged},
                        "folder": folder,
                        "network": None if network is None else network.to_message(),
                        "filtered": filtered is not None,
                        "bound": len(bound),
                    },
                    [*bound, *(filtered.joins if filtered is not None else ())],
                )
        if not done[0].wait(READY_TIMEOUT_S) and self._spawned.pop(number, None) is None:
            done[0].wait()  # it came just now
        if not done[1]:
            said = self._process.last_words() if self._process is not None else ""
            raise SpawnFailed(f"the {self.spec.name} zygote did not answer", "jail", said)
        child = done[1][0]
        try:
            child.wait_ready()
            child.limit_memory(memory_bytes, final=False)
            if self.identified:
                child.identity = identity_of(child.pid)
            if SECCOMP in child.layers:
                child.filter = FilterKind(self.spec.syscalls, networked=network is not None)
            if filtered is not None and network is not None:
                child.at_close(filtered.filter.admit(netns_cookie(child.listeners[0]), network.ports))
        except (SpawnFailed, WorkerCrashed, OSError) as error:
            child.kill()
            child.exit()  # if the zygote died with it, that comes first
            child.close()
            raise SpawnFailed(f"no {self.spec.name} instance: {error}", "jail") from None
        return child

    def _filtered_group(self) -> FilteredGroup | None:
        """Return the group of the networked children, made for the first; None where the kernel does not let us."""
        if self._filtered is None and not self._has_tried_to_filter and EGRESS_FILTER not in self.spec.without:
            self._has_tried_to_filter = True
            with contextlib.suppress(OSError):  # one layer less: the children, and the doctor, say so
                tree = self._group.v2_tree if self._group is not None else None
                if tree is not None and tree.layer in self.layers:
                    self._filtered = FilteredGroup.around(tree.fd)
                else:
                    self._filtered = FilteredGroup.make(group_name(os.getpid(), next(_sequence), self.spec.name))
        return self._filtered

    def _make_scratch(self, uid: int) -> str:
        """Make a folder for a child that cannot have mounts of its own."""
        if "mount namespace, read-only root" in self.layers:
            return ""
        scratch = tempfile.mkdtemp(prefix="runvisor-scratch-")
        if "own uid" in self.layers:
            os.chown(scratch, uid, uid)
        return scratch

    def close(self) -> None:
        """End it and every child, and remove its cgroup; closing twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        self._alive = False
        process.end(self._control)
        for child in list(self._children.values()):
            child.close()
        self._control.close()
        if self._filtered is not None:
            self._filtered.close()
        if self._group is not None:
            self._group.close()

    def _read(self) -> None:
        """Sort what the zygote says: children that came, and children that went."""
        try:
            while True:
                message, fds = self._control.receive_with_fds()
                if message is None:
                    break
                number = int(message["child"])
                if message["op"] == "spawned":
                    uid, scratch = self._pending.pop(number)
                    pid = process_of(fds[3])
                    bound = ProcessLimit(pid) if self._group is None else self._group.slot(str(number))
                    child = Child(number, pid, uid, fds, bound, scratch)
                    self._children[number] = child
                    waiting = self._spawned.pop(number, None)
                    if waiting is None:
                        self._unwanted.add(number)
                        child.kill()
                        continue
                    event, box = waiting
                    box.append(child)
                    event.set()
                elif message["op"] == "exited":
                    gone = self._children.pop(number, None)
                    if gone is not None:
                        gone.note_exit(message)
                        if number in self._unwanted:
                            self._unwanted.remove(number)
                            gone.close()
        except (OSError, ProtocolError, SpawnFailed, KeyError, ValueError):
            pass
        finally:
            with self._lock:
                self._has_died = self._process is not None
                act = self._on_death if self._has_died else None
            if act is not None:
                act()
            self._alive = False
            for event, _ in list(self._spawned.values()):
                event.set()
            for child in list(self._children.values()):
                child.kill()
                child.note_exit(None)


def _pool_group(spec: JailSpec, *, identified: bool) -> PoolGroup | None:
    """Make the pool's cgroup, or return None where this user may make none."""
    cores = None if CPU_CGROUP in spec.without else spec.cores
    try:
        return PoolGroup(group_name(os.getpid(), next(_sequence), spec.name), cores, identified=identified)
    except OSError:
        return None
