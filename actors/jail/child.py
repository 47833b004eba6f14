"""One sealed instance, seen from the host."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from typing import Final

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.jail.cgroups import Slot
from runvisor.actors.jail.uids import UIDS
from runvisor.policies.errors import ProtocolError, SpawnFailed, WorkerCrashed
from runvisor.policies.permissions import MiB

READY_TIMEOUT_S: Final = 20.0
_EXIT_TIMEOUT_S: Final = 5.0
_SLACK_BYTES: Final = 16 * MiB


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

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
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
        self._slot.peak_bytes()  # opens the file now rather than when the answer waits for it
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
        with contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Kill it and give back its descriptors; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self.kill()
        self.channel.close()
        self._slot.close()
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
        UIDS.give_back(self.uid)
        self._exited.set()
