"""The zygote's own program: preload once, then fork sealed children on request.

Started by subprocess, never forked from a Ray worker, with a clean
environment, so that there is no secret in its memory to leak. It stays
single-threaded. Run as ``python -m runvisor.actors.jail.zygote_process
CHARTER``, where the charter is the JSON text of a `Charter`.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.jail import cgroups, kernel, mounts, scratch
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.huge_pages import collapse_private_memory
from runvisor.actors.jail.inmate import Admission, Descriptors, become_inmate
from runvisor.actors.jail.namespaces import enter_user_namespace
from runvisor.actors.jail.seccomp import Filter, FilterKind
from runvisor.actors.jail.spec import MEMORY_CGROUP, USER_NAMESPACE, JailSpec
from runvisor.policies.errors import ProtocolError

_MAX_BOUND: Final = 64
_REMOVE_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class TreeEnds:
    """A hierarchy's part of the pool's cgroup, open in this process."""

    fd: int
    parent_fd: int
    files: tuple[tuple[str, str], ...] = ()
    """What each slot is told when it is made."""
    layer: str = MEMORY_CGROUP
    """The layer by which a child joins it."""


@dataclass(frozen=True, slots=True)
class Charter:
    """What a zygote is told when it starts."""

    spec: JailSpec
    layers: frozenset[str]
    """Layers that its children have."""
    control_fd: int
    group: str = ""
    """Name of the pool's cgroup; empty where there is none."""
    trees: tuple[TreeEnds, ...] = ()
    """Its parts; the first bounds memory."""

    def to_json(self) -> str:
        """Return it as text for the command line."""
        return json.dumps(
            {
                "spec": self.spec.to_json(),
                "layers": sorted(self.layers),
                "control_fd": self.control_fd,
                "group": self.group,
                "trees": [[tree.fd, tree.parent_fd, tree.files, tree.layer] for tree in self.trees],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Charter:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        return cls(
            spec=JailSpec.from_json(data["spec"]),
            layers=frozenset(data["layers"]),
            control_fd=data["control_fd"],
            group=data["group"],
            trees=tuple(
                TreeEnds(fd, parent_fd, tuple((file, value) for file, value in files), layer)
                for fd, parent_fd, files, layer in data["trees"]
            ),
        )


class _ZygoteProcess:
    def __init__(self, charter: Charter) -> None:
        self._charter = charter
        self._spec = charter.spec
        self._layers = charter.layers
        self._control = FrameSocket(socket.socket(fileno=charter.control_fd))
        self._children: dict[int, tuple[int, int, str]] = {}  # pidfd -> (pid, child's id, slot)
        self._scratches: list[str] = []  # host folders that children write in, where they have no mounts
        self._dirty_slots: list[tuple[int, str]] = []  # folder of the tree, name
        self._poll = select.poll()
        self._poll.register(self._control.fileno(), select.POLLIN)

    def prepare(self) -> None:
        """Enter the namespaces that all children start from, preload, and say that it is ready."""
        try:
            self._prepare()
        except Exception as error:
            self._control.send({"op": "failed", "what": f"{type(error).__name__}: {error}"})
            raise
        self._control.send({"op": "ready"})

    def _prepare(self) -> None:
        readable = (*mounts.interpreter_paths(), *self._spec.readable, *self._spec.import_from)
        if "mount namespace, read-only root" in self._layers:
            if USER_NAMESPACE not in self._layers:
                kernel.unshare(kernel.CLONE_NEWNS)
            self._shown = mounts.enter_read_only_root(readable)
        else:
            self._shown = mounts.existing_paths(readable)
        sys.path.extend(self._spec.import_from)
        if "pid namespace" in self._layers:
            self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._filters = Filter(FilterKind(self._spec.syscalls, networked=False))
        self._guest: ModuleType = importlib.import_module(self._spec.guest)
        self._guest.preload(dict(self._spec.options))
        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads != 1:
            raise RuntimeError(f"preloading {self._spec.guest} left {threads} threads; a fork would lose all but one")
        gc.collect()
        gc.freeze()
        collapse_private_memory()

    def run(self) -> None:
        """Serve the control socket until the host closes it, then take every child along."""
        try:
            while True:
                for fd, _ in self._poll.poll():
                    if fd != self._control.fileno():
                        self._reap(fd)
                        continue
                    try:
                        message, fds = self._control.receive_with_fds(_MAX_BOUND)
                    except (OSError, ProtocolError):  # the host was killed with words of ours unread, or amid its own
                        return
                    if message is None:
                        return
                    self._spawn(message, fds)
        finally:
            for pidfd in list(self._children):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                self._reap(pidfd)
            for folder in self._scratches:  # the host removes them, unless it was killed
                scratch.remove(folder)

    def remove_group(self) -> None:
        """Remove the pool's cgroup: the host may have been killed and cannot."""
        deadline = time.monotonic() + _REMOVE_TIMEOUT_S
        for tree in self._charter.trees:
            while time.monotonic() < deadline:
                self._sweep()
                try:
                    os.rmdir(self._charter.group, dir_fd=tree.parent_fd)
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.005)  # the last process is still counted for a moment
                else:
                    break

    def _spawn(self, message: Message, fds: list[int]) -> None:
        number = int(message["child"])
        slot = str(number)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        out_reader, out_writer = os.pipe()
        err_reader, err_writer = os.pipe()
        bound, joins = fds[: message["bound"]], fds[message["bound"] :]
        joins += self._make_slot(slot)
        network = NetworkPlan.from_message(message["network"]) if message["network"] is not None else None
        filters = self._filters if network is None else self._networked_filters()
        pid = self._fork()
        if pid == 0:
            become_inmate(
                self._spec,
                self._layers,
                self._guest,
                Descriptors(theirs.fileno(), out_writer, err_writer, joins, bound),
                Admission(
                    uid=int(message["uid"]),
                    scratch_bytes=int(message["scratch_bytes"]),
                    scratch=str(message["scratch"]),
                    view=_view(message["view"]),
                    network=network,
                    is_filtered=bool(message["filtered"]),
                    folder=str(message["folder"]),
                ),
                shown=self._shown,
                filters=filters,
            )
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (pid, number, slot)
        if "mount namespace, read-only root" not in self._layers:
            self._scratches = [*filter(os.path.lexists, self._scratches), str(message["scratch"])]
        self._poll.register(pidfd, select.POLLIN)
        self._control.send({"op": "spawned", "child": number}, (ours.fileno(), out_reader, err_reader, pidfd))
        ours.close()
        theirs.close()
        for fd in (out_reader, out_writer, err_reader, err_writer, *bound, *joins):
            os.close(fd)
        self._sweep()

    @functools.cache  # noqa: B019  # this object lives as long as its process
    def _networked_filters(self) -> Filter:
        return Filter(FilterKind(self._spec.syscalls, networked=True))

    def _make_slot(self, slot: str) -> list[int]:
        """Make a group for one child in each tree; return the files by which it joins them."""
        joins: list[int] = []
        for tree in self._charter.trees:
            os.mkdir(slot, dir_fd=tree.fd)
            for name, text in tree.files:
                fd = os.open(f"{slot}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=tree.fd)
                os.write(fd, text.encode())
                os.close(fd)
            if tree.layer in self._layers:
                joins.append(os.open(f"{slot}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=tree.fd))
        return joins

    def _fork(self) -> int:
        if "pid namespace" not in self._layers:
            return os.fork()
        # The child is process 1 of a new pid namespace: when it dies, all it started dies.
        kernel.setns(self._own_pid_namespace, kernel.CLONE_NEWPID)
        kernel.unshare(kernel.CLONE_NEWPID)
        pid = os.fork()
        if pid:
            kernel.setns(self._own_pid_namespace, kernel.CLONE_NEWPID)
        return pid

    def _reap(self, pidfd: int) -> None:
        pid, number, slot = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        _, status, usage = os.wait4(pid, 0)
        os.close(pidfd)
        with contextlib.suppress(OSError):  # the host may be gone; the rest still has to be done
            self._control.send(
                {
                    "op": "exited",
                    "child": number,
                    "status": status,
                    "cpu_s": usage.ru_utime + usage.ru_stime,
                    "oom_kills": self._oom_kills(slot),
                    "peak": self._peak_bytes(slot) if os.WIFSIGNALED(status) else None,
                    "resident": usage.ru_maxrss * 1024,
                }
            )
        self._dirty_slots += [(tree.fd, slot) for tree in self._charter.trees]
        self._sweep()

    def _oom_kills(self, slot: str) -> int:
        return cgroups.count_oom_kills(self._read(slot, ("memory.events", "memory.oom_control")))

    def _peak_bytes(self, slot: str) -> int | None:
        text = self._read(slot, ("memory.peak", "memory.max_usage_in_bytes"))
        return int(text) if text else None

    def _read(self, slot: str, names: tuple[str, ...]) -> str:
        """Read the first of these files that there is in a slot of the memory tree."""
        for name in names if self._charter.trees else ():
            try:
                fd = os.open(f"{slot}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._charter.trees[0].fd)
            except OSError:
                continue
            with os.fdopen(fd) as file:
                return file.read()
        return ""

    def _sweep(self) -> None:
        """Remove the cgroups of the dead; one that is busy for a moment longer waits for the next sweep."""
        left: list[tuple[int, str]] = []
        for tree_fd, slot in self._dirty_slots:
            try:
                os.rmdir(slot, dir_fd=tree_fd)
            except FileNotFoundError:
                continue
            except OSError:
                left.append((tree_fd, slot))
        self._dirty_slots = left


def _view(data: dict[str, Any] | None) -> mounts.View | None:
    if data is None:
        return None
    return mounts.View(tuple(data["bound"]), tuple((place, writable) for place, writable in data["staged"]))


def _enter_user_namespace() -> None:
    """Go on as process 1 of a pid namespace of our own: only its owner may make others below it.

    The process that was started stays behind and ends as the other does.
    """
    enter_user_namespace(0, kernel.CLONE_NEWPID | kernel.CLONE_NEWNS)
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Run the program described in the module's docstring."""
    # A Ray worker ignores SIGCHLD, and that outlives an exec: children would vanish unreaped.
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    # Its threads block SIGINT as well, by which a session is interrupted.
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    charter = Charter.from_json(sys.argv[1])
    if USER_NAMESPACE in charter.layers:
        _enter_user_namespace()
    process = _ZygoteProcess(charter)
    process.prepare()
    process.run()
    process.remove_group()


if __name__ == "__main__":
    main()
