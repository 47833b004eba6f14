"""The zygote's own program: preload once, then fork sealed children on request.

Started by subprocess, never forked from a Ray worker, with a clean
environment, so that there is no secret in its memory to leak. It stays
single-threaded. Run as ``python -m runvisor.actors.jail.zygote_process FD
CGROUP_FD PARENT_FD GROUP SPEC``: a control socket, the pool's cgroup, the
folder that holds it, and its name there.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Final

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.jail import cgroups, kernel, mounts
from runvisor.actors.jail.inmate import Descriptors, become_inmate
from runvisor.actors.jail.seccomp import Filter
from runvisor.actors.jail.spec import JailSpec

_REMOVE_TIMEOUT_S: Final = 2.0


class _ZygoteProcess:
    def __init__(self, control: FrameSocket, cgroup_fd: int, spec: JailSpec) -> None:
        self._control = control
        self._cgroup_fd = cgroup_fd
        self._spec = spec
        self._children: dict[int, tuple[int, int, str]] = {}  # pidfd -> (pid, child's id, slot)
        self._dirty_slots: list[str] = []
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)

    def prepare(self) -> None:
        kernel.unshare(kernel.CLONE_NEWNS)
        self._shown = mounts.enter_read_only_root(
            (*mounts.interpreter_paths(), *self._spec.readable, *self._spec.import_from)
        )
        sys.path.extend(self._spec.import_from)
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._filters = Filter(self._spec.syscalls)
        self._guest: ModuleType = importlib.import_module(self._spec.guest)
        self._guest.preload(dict(self._spec.options))
        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads != 1:
            raise RuntimeError(f"preloading {self._spec.guest} left {threads} threads; a fork would lose all but one")
        gc.collect()
        gc.freeze()

    def run(self) -> None:
        """Serve the control socket until the host closes it, then take every child along."""
        try:
            while True:
                for fd, _ in self._poll.poll():
                    if fd != self._control.fileno():
                        self._reap(fd)
                        continue
                    message = self._control.receive()
                    if message is None:
                        return
                    self._spawn(message)
        finally:
            for pidfd in list(self._children):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                self._reap(pidfd)

    def remove_group(self, parent_fd: int, name: str) -> None:
        """Remove the pool's cgroup: the host may have been killed and cannot."""
        deadline = time.monotonic() + _REMOVE_TIMEOUT_S
        while time.monotonic() < deadline:
            self._sweep()
            try:
                os.rmdir(name, dir_fd=parent_fd)
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.005)  # the last process is still counted for a moment
            else:
                return

    def _spawn(self, message: Message) -> None:
        number = int(message["child"])
        slot = str(number)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        out_reader, out_writer = os.pipe()
        err_reader, err_writer = os.pipe()
        os.mkdir(slot, dir_fd=self._cgroup_fd)
        procs = os.open(f"{slot}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._cgroup_fd)
        # The child is process 1 of a new pid namespace: when it dies, all it started dies.
        kernel.setns(self._own_pid_namespace, kernel.CLONE_NEWPID)
        kernel.unshare(kernel.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            become_inmate(
                self._spec,
                self._guest,
                Descriptors(theirs.fileno(), out_writer, err_writer, procs),
                uid=int(message["uid"]),
                scratch_bytes=int(message["scratch_bytes"]),
                shown=self._shown,
                filters=self._filters,
            )
        kernel.setns(self._own_pid_namespace, kernel.CLONE_NEWPID)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (pid, number, slot)
        self._poll.register(pidfd, select.POLLIN)
        self._control.send(
            {"op": "spawned", "child": number, "pid": pid}, (ours.fileno(), out_reader, err_reader, pidfd)
        )
        ours.close()
        theirs.close()
        for fd in (out_reader, out_writer, err_reader, err_writer, procs):
            os.close(fd)
        self._sweep()

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
                }
            )
        self._dirty_slots.append(slot)
        self._sweep()

    def _oom_kills(self, slot: str) -> int:
        for name in ("memory.events", "memory.oom_control"):
            try:
                fd = os.open(f"{slot}/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._cgroup_fd)
            except OSError:
                continue
            with os.fdopen(fd) as events:
                return cgroups.count_oom_kills(events.read())
        return 0

    def _sweep(self) -> None:
        """Remove the cgroups of the dead; one that is busy for a moment longer waits for the next sweep."""
        left: list[str] = []
        for slot in self._dirty_slots:
            try:
                os.rmdir(slot, dir_fd=self._cgroup_fd)
            except FileNotFoundError:
                continue
            except OSError:
                left.append(slot)
        self._dirty_slots = left


def main() -> None:
    """Run the program described in the module's docstring."""
    # A Ray worker ignores SIGCHLD, and that outlives an exec: children would vanish unreaped.
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    control_fd, cgroup_fd, parent_fd = map(int, sys.argv[1:4])
    group, spec = sys.argv[4], JailSpec.from_json(sys.argv[5])
    control = FrameSocket(socket.socket(fileno=control_fd))
    process = _ZygoteProcess(control, cgroup_fd, spec)
    try:
        process.prepare()
    except Exception as error:
        control.send({"op": "failed", "what": f"{type(error).__name__}: {error}"})
        raise
    rss = Path("/proc/self/statm").read_text().split()[1]
    control.send({"op": "ready", "rss_pages": int(rss)})
    process.run()
    process.remove_group(parent_fd, group)


if __name__ == "__main__":
    main()
