"""The host's side of a zygote: start it, have it spawn sealed children, end it."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.jail.cgroups import PoolGroup, Slot
from runvisor.actors.jail.spec import JailSpec
from runvisor.policies.errors import ProtocolError, SpawnFailed, WorkerCrashed
from runvisor.policies.permissions import MiB

_SPAWN_TIMEOUT_S: Final = 20.0
_EXIT_TIMEOUT_S: Final = 5.0
_SLACK_BYTES: Final = 16 * MiB
_ENVIRONMENT: Final = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "agg",
    "MPLCONFIGDIR": "/tmp",
}
"""All that a zygote's guests see of an environment: nothing of ours."""

_sequence = itertools.count()


@dataclass(frozen=True, slots=True)
class ChildExit:
    """How a child ended, as its zygote saw it."""

    signal: int
    """The signal that killed it, or 0."""
    status: int
    """Its exit status, if no signal killed it."""
    cpu_s: float
    """CPU time of it and of all that it waited for."""
    oom_killed: bool
    """The kernel killed it because its cgroup was full."""


@dataclass(frozen=True, slots=True)
class ChildUsage:
    """What a child has used up to now."""

    cpu_s: float
    peak_memory_bytes: int | None


class _Uids:
    """Uids for the children of this process: none is shared by two that live.

    A distinct uid keeps RLIMIT_NPROC, signals and ptrace of one execution
    apart from every other's, pid namespaces aside.
    """

    _PER_PROCESS = 256

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: set[int] = set()

    def take(self) -> int:
        with self._lock:
            number = next((n for n in range(self._PER_PROCESS) if n not in self._used), None)
            if number is None:
                raise SpawnFailed(
                    f"this process already has {self._PER_PROCESS} sandbox children", "", "use more pools"
                )
            self._used.add(number)
        return self._base() + number

    def give_back(self, uid: int) -> None:
        with self._lock:
            self._used.discard(uid - self._base())

    def _base(self) -> int:
        first = 0x60000000 + (os.getpid() & 0x3FFFFF) * self._PER_PROCESS
        mapped = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
        if any(inside <= first and first + self._PER_PROCESS <= inside + count for inside, _, count in mapped):
            return first
        return 61000  # a user namespace that maps only the classic 16-bit range


_uids = _Uids()


class Child:
    """One sealed instance, seen from the host. Serves one task, then `close`.

    Attributes:
        channel: Frames to and from the guest's ``serve``.
        stdout_fd: Read end of its stdout, non-blocking.
        stderr_fd: Read end of its stderr, non-blocking.
        pidfd: Readable when it has exited.
    """

    def __init__(self, number: int, pid: int, uid: int, fds: list[int], slot: Slot) -> None:
        self.number = number
        self.pid = pid
        self.uid = uid
        self.channel = FrameSocket(socket.socket(fileno=fds[0]))
        self.stdout_fd, self.stderr_fd, self.pidfd = fds[1:]
        self._slot = slot
        self._exited = threading.Event()
        self._exit: ChildExit | None = None
        self._closed = False
        self._baseline_bytes = 0
        self._baseline_cpu_s = 0.0
        self._memory_bytes = 0
        for fd in (self.stdout_fd, self.stderr_fd):
            os.set_blocking(fd, False)

    def wait_ready(self, timeout_s: float = _SPAWN_TIMEOUT_S) -> None:
        """Wait until every layer that does not depend on a grant is in force.

        Raises:
            SpawnFailed: The child died or stayed silent; the message holds what it said.
        """
        self.channel.settimeout(timeout_s)
        try:
            message = self.channel.receive()
        except (OSError, ProtocolError):
            message = None
        self.channel.settimeout(None)
        if message is None or message.get("op") != "ready":
            self.kill()
            said = b""
            with contextlib.suppress(OSError):
                said = os.read(self.stderr_fd, 4000)
            raise SpawnFailed("a sandbox child could not be sealed", "jail", said.decode(errors="replace").strip())
        self._baseline_bytes = self._slot.current_bytes()
        self._baseline_cpu_s = self._cpu_s()

    def limit_memory(self, memory_bytes: int) -> None:
        """Let the child's cgroup grow by ``memory_bytes`` (and a fixed slack) beyond its warm state.

        Raises:
            WorkerCrashed: The limit cannot be set; nothing must run without it.
        """
        if memory_bytes == self._memory_bytes:
            return
        try:
            self._slot.limit_memory(self._baseline_bytes + memory_bytes + _SLACK_BYTES)
        except OSError as error:
            raise WorkerCrashed(
                f"the memory limit cannot be set: {error.strerror}", "cgroup", "", {"started": False}
            ) from None
        self._memory_bytes = memory_bytes

    def usage(self) -> ChildUsage:
        """Return what a living child has used since it was ready, in all its threads."""
        peak = self._slot.peak_bytes()
        cpu_s = max(0.0, self._cpu_s() - self._baseline_cpu_s)
        return ChildUsage(cpu_s, None if peak is None else max(0, peak - self._baseline_bytes))

    def _cpu_s(self) -> float:
        """Read the CPU-time clock of the process (clock_getcpuclockid in section 3 of the manual)."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:  # it has ended
            return 0.0

    def cpu_since_ready(self, end: ChildExit) -> float:
        """Return the CPU time of a child that has ended, without what it took to make it."""
        return max(0.0, end.cpu_s - self._baseline_cpu_s)

    def exit(self, timeout_s: float = _EXIT_TIMEOUT_S) -> ChildExit | None:
        """Wait for the child's end and say how it came; None if it has not ended in time."""
        self._exited.wait(timeout_s)
        return self._exit

    def kill(self) -> None:
        """Kill it and everything that it started. Harmless when it is dead."""
        import signal

        with contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Kill it and give back its descriptors; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self.kill()
        self.channel.close()
        for fd in (self.stdout_fd, self.stderr_fd, self.pidfd):
            os.close(fd)

    def note_exit(self, message: Message | None) -> None:
        """Record the zygote's word of the child's end (called by the zygote's reader)."""
        if message is not None:
            status = int(message["status"])
            self._exit = ChildExit(
                signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
                status=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
                cpu_s=float(message["cpu_s"]),
                oom_killed=int(message["oom_kills"]) > 0,
            )
        _uids.give_back(self.uid)
        self._exited.set()


class Zygote:
    """A preloaded process that forks sealed children.

    Started by subprocess with a clean environment; needs root. When the host
    process dies, the zygote and all its children die.

    Args:
        spec: What the children are.
    """

    def __init__(self, spec: JailSpec) -> None:
        self.spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._group: PoolGroup | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._children: dict[int, Child] = {}
        self._spawned: dict[int, tuple[threading.Event, list[Child]]] = {}
        self._pending_uids: dict[int, int] = {}
        self._alive = False

    def start(self, timeout_s: float = 60.0) -> None:
        """Start it and wait until it has preloaded.

        Raises:
            SpawnFailed: It cannot run here; the message says what is missing.
        """
        if os.geteuid() != 0:
            raise SpawnFailed(
                "the jail needs root on this version", self.spec.name, "run as root, or in a container as root"
            )
        try:
            self._group = PoolGroup(f"runvisor-{os.getpid()}-{next(_sequence)}-{self.spec.name}")
        except OSError as error:
            raise SpawnFailed(
                str(error), self.spec.name, "make the cgroup file system writable for this process"
            ) from None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control = FrameSocket(ours)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-m",
                "runvisor.actors.jail.zygote_process",
                str(theirs.fileno()),
                str(self._group.fd),
                str(self._group.parent_fd),
                self._group.path.name,
                self.spec.to_json(),
            ],
            pass_fds=(theirs.fileno(), self._group.fd, self._group.parent_fd),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        self._control.settimeout(timeout_s)
        try:
            message = self._control.receive()
        except (OSError, ProtocolError):
            message = None
        self._control.settimeout(None)
        if message is None or message.get("op") != "ready":
            reason = (message or {}).get("what") or self._said() or f"no answer in {timeout_s} s"
            self.close()
            raise SpawnFailed(f"the {self.spec.name} zygote did not start: {reason}", "jail")
        self._alive = True
        threading.Thread(target=self._read, name=f"zygote-{self.spec.name}", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it can spawn."""
        return self._alive

    def spawn(self, *, memory_bytes: int, disk_bytes: int | None = None) -> Child:
        """Return a new child, sealed and waiting for its task.

        Args:
            memory_bytes: Its first memory limit, beyond its warm state.
            disk_bytes: Size of its scratch; None is the spec's.

        Raises:
            SpawnFailed: It could not be made; the zygote may be dead (see `alive`).
        """
        number = next(self._numbers)
        uid = _uids.take()
        done: tuple[threading.Event, list[Child]] = (threading.Event(), [])
        with self._lock:
            if not self._alive:
                _uids.give_back(uid)
                raise SpawnFailed(f"the {self.spec.name} zygote is not running", "jail")
            self._spawned[number] = done
            self._pending_uids[number] = uid
            try:
                self._control.send(
                    {
                        "op": "spawn",
                        "child": number,
                        "uid": uid,
                        "scratch_bytes": disk_bytes or self.spec.scratch_bytes,
                    }
                )
            except OSError:
                self._alive = False
        done[0].wait(_SPAWN_TIMEOUT_S)
        if not done[1]:
            raise SpawnFailed(f"the {self.spec.name} zygote did not answer", "jail", self._said())
        child = done[1][0]
        try:
            child.wait_ready()
            child.limit_memory(memory_bytes)
        except (SpawnFailed, WorkerCrashed, OSError) as error:
            child.close()
            raise SpawnFailed(f"no {self.spec.name} instance: {error}", "jail") from None
        return child

    def close(self) -> None:
        """End it and every child, and remove its cgroup; closing twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        self._alive = False
        with contextlib.suppress(OSError):
            self._control._socket.shutdown(socket.SHUT_RDWR)
        try:
            process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in list(self._children.values()):
            child.close()
        self._control.close()
        self._errors.close()
        if self._group is not None:
            self._group.close()

    def _said(self) -> str:
        try:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
        except ValueError:
            return ""
        return lines[-1] if lines else ""

    def _read(self) -> None:
        """Sort what the zygote says: children that came, and children that went."""
        assert self._group is not None
        try:
            while True:
                message, fds = self._control.receive_with_fds()
                if message is None:
                    break
                number = int(message["child"])
                if message["op"] == "spawned":
                    uid = self._pending_uids.pop(number)
                    child = Child(number, int(message["pid"]), uid, fds, self._group.slot(str(number)))
                    self._children[number] = child
                    event, box = self._spawned.pop(number)
                    box.append(child)
                    event.set()
                elif message["op"] == "exited":
                    gone = self._children.pop(number, None)
                    if gone is not None:
                        gone.note_exit(message)
        except (OSError, ProtocolError, KeyError, ValueError):
            pass
        finally:
            self._alive = False
            for event, _ in list(self._spawned.values()):
                event.set()
            for child in list(self._children.values()):
                child.kill()
                child.note_exit(None)
