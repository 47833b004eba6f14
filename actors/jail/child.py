"""One sealed instance, seen from the host."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.jail import scratch as scratches
from runvisor.actors.jail.seccomp import FilterKind
from runvisor.actors.jail.uids import UIDS
from runvisor.actors.process_birth import process_birth
from runvisor.policies.errors import ProtocolError, SpawnFailed, WorkerCrashed

READY_TIMEOUT_S: Final = 20.0
_EXIT_TIMEOUT_S: Final = 5.0
_MAX_FOLDERS: Final = 96


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
    peak_memory_bytes: int | None = None
    """What counted against its bound at most, as far as that is known; only of one that was killed."""


@dataclass(frozen=True, slots=True)
class ChildUsage:
    """What a child has used up to now."""

    cpu_s: float
    peak_memory_bytes: int | None


class MemoryBound(Protocol):
    """What holds one child to its memory: its cgroup, or its own limits."""

    can_rise: bool
    """A bound that was set holds, and may still be raised: none has to be final."""
    slack_bytes: int
    """What a child may have beyond its limit."""

    def limit_memory(self, limit_bytes: int, *, final: bool) -> None:
        """Set the bound; one that is not final may rise."""
        ...

    def current_bytes(self) -> int:
        """Return what counts against it now."""
        ...

    def peak_bytes(self) -> int | None:
        """Return the most that ever counted, or None if that is not known."""
        ...

    def peak_at_end(self, resident_bytes: int) -> int | None:
        """Return the same of a child that has ended, by its highest resident size, or None if that says too little."""
        ...

    def close(self) -> None:
        """Give back what it holds open."""
        ...


class Child:
    """One sealed instance, seen from the host. Serves one task, then `close`.

    Attributes:
        channel: Frames to and from the guest's ``serve``.
        stdout_fd: Read end of its stdout, non-blocking.
        stderr_fd: Read end of its stderr, non-blocking.
        pidfd: Readable when it has exited.
        poll: Waits for any of these four, the channel first; made here, ahead, and not when an answer waits for it.
        layers: What is in force around it, as it found when it was sealed.
        folders: Descriptors of the folders behind its /in, /out and each staged place.
        listeners: Its listening sockets, for the broker of its network to take.
        scratch: The host folder it writes in, where it has no mounts of its own.
        identity: Its own cgroup's id, where its zygote was told to find it (see `unified.identity_of`).
        filter: What answers for the kernel to some of its system calls; None if nothing does.
    """

    def __init__(self, number: int, pid: int, uid: int, fds: list[int], slot: MemoryBound, scratch: str = "") -> None:
        self.number = number
        self.pid = pid
        self.uid = uid
        self.layers: tuple[str, ...] = ()
        self.folders: list[int] = []
        self.listeners: list[int] = []
        self.scratch = scratch
        self.identity: int | None = None
        self.filter: FilterKind | None = None
        self.channel = FrameSocket(socket.socket(fileno=fds[0]))
        self.stdout_fd, self.stderr_fd, self.pidfd = fds[1:]
        self._slot = slot
        self._owned: list[int] = []
        self._at_close: list[Callable[[], None]] = []
        self._exited = threading.Event()
        self._exit: ChildExit | None = None
        self._closed = False
        self._closing = threading.Lock()
        self._baseline_bytes = 0
        self._baseline_cpu_s = 0.0
        self._memory_limit = (0, False)
        self.poll = select.poll()
        for fd in (self.channel.fileno(), *fds[1:]):
            self.poll.register(fd, select.POLLIN)
        for fd in (self.stdout_fd, self.stderr_fd):
            os.set_blocking(fd, False)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until every layer that does not depend on a grant is in force.

        Raises:
            SpawnFailed: The child died or stayed silent; the message holds what it said.
        """
        self.channel.settimeout(timeout_s)
        try:
            message, self.folders = self.channel.receive_with_fds(_MAX_FOLDERS)
        except (OSError, ProtocolError):
            message = None
        self.channel.settimeout(None)
        if message is None or message.get("op") != "ready":
            self.kill()
            said = b""
            with contextlib.suppress(OSError):
                said = os.read(self.stderr_fd, 4000)
            raise SpawnFailed("a sandbox child could not be sealed", "jail", said.decode(errors="replace").strip())
        self.layers = tuple(message["layers"])
        self.folders, self.listeners = self.folders[: message["folders"]], self.folders[message["folders"] :]
        self._baseline_bytes = self._slot.current_bytes()
        self._slot.peak_bytes()  # opens the file now rather than when the answer waits for it
        self._baseline_cpu_s = self._cpu_s()

    def limit_memory(self, memory_bytes: int, *, final: bool = True) -> None:
        """Let the child grow by ``memory_bytes`` (and the slack of its bound) beyond its warm state.

        Args:
            memory_bytes: The limit.
            final: Not to be raised again; only a final limit holds where there is no cgroup.

        Raises:
            WorkerCrashed: The limit cannot be set; nothing must run without it.
        """
        # The files of a cgroup cost half a millisecond: most tasks ask for what is set already.
        if (memory_bytes, final or self._slot.can_rise) == self._memory_limit:
            return
        try:
            self._slot.limit_memory(self._baseline_bytes + memory_bytes + self._slot.slack_bytes, final=final)
        except OSError as error:
            raise WorkerCrashed(
                f"the memory limit cannot be set: {error.strerror}", "memory", "", {"started": False}
            ) from None
        self._memory_limit = (memory_bytes, final or self._slot.can_rise)

    def usage(self) -> ChildUsage:
        """Return what a living child has used since it was ready, in all its threads."""
        peak = self._slot.peak_bytes()
        if peak is None and self._exit is not None:
            peak = self._exit.peak_memory_bytes
        return ChildUsage(max(0.0, self._cpu_s() - self._baseline_cpu_s), self._since_ready(peak))

    def usage_at_end(self, end: ChildExit) -> ChildUsage:
        """Return what a child that has ended had used, without what it took to make it."""
        peak = self._slot.peak_bytes()
        peak = end.peak_memory_bytes if peak is None else peak
        return ChildUsage(max(0.0, end.cpu_s - self._baseline_cpu_s), self._since_ready(peak))

    def _since_ready(self, peak: int | None) -> int | None:
        return None if peak is None else max(0, peak - self._baseline_bytes)

    def _cpu_s(self) -> float:
        """Read the CPU-time clock of the process (clock_getcpuclockid in section 3 of the manual).

        A guest is one process, so that its cgroup counts no more, and reading that costs more.
        """
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:  # it has ended, and its zygote has its last word
            end = self.exit()
            return end.cpu_s if end is not None else 0.0

    def own(self, fd: int) -> None:
        """Take a descriptor that is to be closed with the child."""
        self._owned.append(fd)

    def at_close(self, act: Callable[[], None]) -> None:
        """Have something done when the child is closed."""
        self._at_close.append(act)

    def exit(self, timeout_s: float = _EXIT_TIMEOUT_S) -> ChildExit | None:
        """Wait for the child's end and say how it came; None if it has not ended in time."""
        self._exited.wait(timeout_s)
        return self._exit

    def birth(self) -> str:
        """Return what tells it from every process that has or had its number (`process_birth`); empty if it has ended.

        A child that has ended is reaped by its zygote, and its number may be another's by now.
        """
        birth = process_birth(self.pid)
        with self._closing:
            has_ended = self._closed or _is_readable(self.pidfd)
        return "" if has_ended else birth  # it lives after that was read, so that the number was still its own

    def kill(self) -> None:
        """Kill it and everything that it started. Harmless when it is dead."""
        with contextlib.suppress(ProcessLookupError, OSError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Kill it and give back its descriptors; closing twice is fine, also from two threads."""
        with self._closing:  # a descriptor that is closed twice may be another's by then
            if self._closed:
                return
            self._closed = True
        self.kill()
        self.channel.close()
        self._slot.close()
        for fd in (self.stdout_fd, self.stderr_fd, self.pidfd, *self.folders, *self.listeners, *self._owned):
            os.close(fd)
        for act in self._at_close:
            act()
        if self.scratch:
            self.exit()  # while it dies it may still write
            scratches.remove(self.scratch)

    def note_exit(self, message: Message | None) -> None:
        """Record the zygote's word of the child's end (called by the zygote's reader)."""
        if message is not None:
            status = int(message["status"])
            peak = message["peak"]
            if peak is None and os.WIFSIGNALED(status):
                peak = self._slot.peak_at_end(int(message["resident"]))
            self._exit = ChildExit(
                signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
                status=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
                cpu_s=float(message["cpu_s"]),
                oom_killed=int(message["oom_kills"]) > 0,
                peak_memory_bytes=peak,
            )
        UIDS.give_back(self.uid)
        self._exited.set()


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def process_of(pidfd: int) -> int:
    """Return the id, in this process's own pid namespace, of the process behind a pidfd (pidfd_open in section 2)."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise SpawnFailed("a sandbox child ended before it was seen", "jail")
