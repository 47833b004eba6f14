"""One task with one child: send it, gather what it prints, end it at its bounds.

Nothing the child sends can make the host wait past the deadline or hold more
than the bounds: every descriptor is read without blocking.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from runvisor.actors.channel.frames import FrameBuffer, Message
from runvisor.actors.jail.child import Child, ChildExit, ChildUsage
from runvisor.policies.errors import ProtocolError, WorkerCrashed

_READ_BYTES: Final = 1 << 16

End = Literal["reply", "timeout", "output", "reply too large", "exit"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one conversation may take."""

    timeout_s: float
    output_bytes: int
    """Cap of stdout and of stderr, each."""
    reply_bytes: int
    """Cap of the reply frame."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said, and how it ended. Everything in it came from a hostile process."""

    end: End
    reply: Message | None
    stdout: bytes
    stderr: bytes
    wall_s: float
    usage: ChildUsage
    exit: ChildExit | None
    """Set when the child died of itself."""


def converse(child: Child, task: Mapping[str, Any], bounds: Bounds, on_started: Callable[[], None]) -> Transcript:
    """Send a task and gather the outcome; the child is not to be used again.

    Args:
        child: A sealed child that waits.
        task: The frame for it.
        bounds: When to end it.
        on_started: Called once, when the child has acknowledged the task.

    Raises:
        WorkerCrashed: The child was dead before it acknowledged the task; nothing ran.
    """
    began = time.monotonic()
    deadline = began + bounds.timeout_s
    try:
        child.channel.send(task)
    except OSError:
        raise _died_waiting(child) from None
    gathering = _Gathering(child, bounds, on_started)
    end = gathering.until(deadline)
    if end != "reply":
        child.kill()
    wall_s = time.monotonic() - began
    usage = child.usage()
    child_exit: ChildExit | None = None
    if end == "exit":
        child_exit = child.exit()
        if child_exit is not None:
            usage = ChildUsage(child.cpu_since_ready(child_exit), usage.peak_memory_bytes)
        if not gathering.started:
            raise _died_waiting(child)
    return Transcript(end, gathering.reply, bytes(gathering.stdout), bytes(gathering.stderr), wall_s, usage, child_exit)


def _died_waiting(child: Child) -> WorkerCrashed:
    said = b""
    with contextlib.suppress(OSError):
        said = os.read(child.stderr_fd, _READ_BYTES)
    how = f"{child.exit()}, stderr {said.decode(errors='replace').strip()[-500:]!r}"
    return WorkerCrashed(f"the instance died before its task: {how}", "jail", "", {"started": False})


class _Gathering:
    """The state of one conversation's reading."""

    def __init__(self, child: Child, bounds: Bounds, on_started: Callable[[], None]) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.reply: Message | None = None
        self.started = False
        self._child = child
        self._bounds = bounds
        self._on_started = on_started
        self._frames = FrameBuffer(max_bytes=bounds.reply_bytes)
        self._channel = child.channel.fileno()
        self._streams = {child.stdout_fd: self.stdout, child.stderr_fd: self.stderr}
        self._poll = select.poll()
        for fd in (self._channel, child.stdout_fd, child.stderr_fd, child.pidfd):
            self._poll.register(fd, select.POLLIN)
        os.set_blocking(self._channel, False)

    def until(self, deadline: float) -> End:
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                self._drain()
                return "timeout"
            for fd, _ in self._poll.poll(left_s * 1000 + 1):
                end = self._on_readable(fd)
                if end is not None:
                    return self._drain() or end

    def _on_readable(self, fd: int) -> End | None:
        if fd == self._channel:
            return self._read_channel()
        if fd in self._streams:
            return self._read_stream(fd)
        return self._read_channel() or "exit"  # the pidfd: its last words may still lie in the channel

    def _read_channel(self) -> End | None:
        while True:
            try:
                data = os.read(self._channel, _READ_BYTES)
            except BlockingIOError:
                return None
            except OSError:
                data = b""
            if not data:  # closed by the guest: the process may go on, but can answer no more
                self._poll.unregister(self._channel)
                self._child.kill()
                return "exit"
            try:
                messages = self._frames.feed(data)
            except ProtocolError:
                return "reply too large"
            for message in messages:
                if message.get("op") == "started" and not self.started:
                    self.started = True
                    self._on_started()
                elif self.started:
                    self.reply = message
                    return "reply"

    def _read_stream(self, fd: int) -> End | None:
        kept = self._streams[fd]
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return None
        if not data:
            self._poll.unregister(fd)
        room = self._bounds.output_bytes - len(kept)
        kept += data[:room]
        return "output" if len(data) > room else None

    def _drain(self) -> End | None:
        """Take what already lies in the pipes; a guest that floods them is cut at its cap."""
        for fd, kept in self._streams.items():
            while True:
                try:
                    data = os.read(fd, _READ_BYTES)
                except OSError:
                    break
                if not data:
                    break
                room = self._bounds.output_bytes - len(kept)
                kept += data[:room]
                if len(data) > room:
                    return "output"
        return None
