"""Talking with a child: send it work, gather what it prints and answers, end it at its bounds.

Nothing the child sends, or refuses to take, can make the host wait past the
deadline or hold more than the bounds: every descriptor is used without blocking.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from runvisor.actors.channel.frames import FrameBuffer, FrameTooLarge, Message, decode_report, encode
from runvisor.actors.jail.child import Child, ChildExit, ChildUsage
from runvisor.actors.runtime import Watch
from runvisor.policies.errors import ProtocolError, WorkerCrashed

_READ_BYTES: Final = 1 << 16
_INTERRUPT_AGAIN_S: Final = 0.1

End = Literal["reply", "timeout", "output", "reply too large", "malformed", "exit", "cancelled"]
Kind = Literal["task", "open", "cell"]
"""What is asked of the child: a task says that it started and answers; a session says that
it is open; a cell of it answers."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one exchange may take."""

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


def converse(
    child: Child, task: Mapping[str, Any], bounds: Bounds, watch: Watch, shared: Sequence[int] = ()
) -> Transcript:
    """Send a task and gather the outcome; the child is not to be used again.

    Args:
        child: A sealed child that waits.
        task: The frame for it.
        bounds: When to end it.
        watch: Told of the start and of output; a cancellation kills the child at once.
        shared: Descriptors for the child, sent beside the frame.

    Raises:
        WorkerCrashed: The child was dead before it acknowledged the task; nothing ran.
    """
    return Conversation(child, bounds.reply_bytes).exchange("task", task, bounds, watch, shared)


class Conversation:
    """Exchanges with one child, one after the other.

    An exchange that does not end with a reply has killed the child; a reply out
    of turn ends the next one as a crash. What a child prints between two
    exchanges belongs to the later.

    Args:
        child: A sealed child that waits.
        reply_bytes: Cap of any frame from it.
    """

    def __init__(self, child: Child, reply_bytes: int) -> None:
        self.child = child
        self.frames = FrameBuffer(max_bytes=reply_bytes, decode=decode_report)
        self.is_out_of_turn = False
        """The child has said more than it was asked for."""
        self.poll = child.poll
        self.channel = child.channel.fileno()
        self.interrupted = -1
        self._was_rung = False
        self.is_sending = False
        """The poll waits for room in the channel too."""

    def hear(self) -> None:
        """Let the poll hear of `ring`, and forget what was rung for an earlier cell."""
        if self.interrupted < 0:
            self.interrupted = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self.poll.register(self.interrupted, select.POLLIN)
            # The child's: it outlives every exchange, and is closed where all that is the child's is.
            self.child.own(self.interrupted)
        elif self._was_rung:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.interrupted)
            self._was_rung = False

    def ring(self) -> None:
        """Wake the poll, from another thread."""
        self._was_rung = True
        os.eventfd_write(self.interrupted, 1)

    def exchange(
        self, kind: Kind, message: Mapping[str, Any], bounds: Bounds, watch: Watch, shared: Sequence[int] = ()
    ) -> Transcript:
        """Send a message and gather the outcome.

        A cancellation kills the child, but only interrupts a cell, which then
        has until its deadline to answer.

        Args:
            kind: What is asked.
            message: The frame for the child.
            bounds: When to end it.
            watch: Told of the start and of output; asked whether to go on.
            shared: Descriptors for the child, sent beside the frame.

        Raises:
            WorkerCrashed: The child was dead before it said that it started; nothing ran.
        """
        began = time.monotonic()
        exchange = _Exchange(self, kind, bounds, watch)
        watch.cancellation.act(exchange.on_cancel())
        try:
            end = exchange.send(message, shared) or exchange.until(began + bounds.timeout_s)
        finally:
            watch.cancellation.act(None)
        if end == "exit" and kind != "cell" and watch.cancellation.cancelled:
            end = "cancelled"
        if end != "reply":
            self.child.kill()
        wall_s = time.monotonic() - began
        usage = self.child.usage()
        child_exit: ChildExit | None = None
        if end == "exit":
            child_exit = self.child.exit()
            if child_exit is not None:
                usage = self.child.usage_at_end(child_exit)
            if not exchange.started:
                raise _died_waiting(self.child, exchange)
        stdout, stderr = exchange.printed.values()
        return Transcript(end, exchange.reply, bytes(stdout), bytes(stderr), wall_s, usage, child_exit)


def _died_waiting(child: Child, exchange: _Exchange) -> WorkerCrashed:
    said = bytes(exchange.printed[child.stderr_fd])
    how = f"{child.exit()}, stderr {said.decode(errors='replace').strip()[-500:]!r}"
    return WorkerCrashed(f"the instance died before its task: {how}", "jail", "", {"started": False})


class _Exchange:
    """The state of one exchange."""

    def __init__(self, conversation: Conversation, kind: Kind, bounds: Bounds, watch: Watch) -> None:
        child = conversation.child
        self.printed = {child.stdout_fd: bytearray(), child.stderr_fd: bytearray()}
        self.reply: Message | None = None
        self.started = kind == "cell"
        self._of = conversation
        self._child = child
        self._kind = kind
        self._bounds = bounds
        self._watch = watch
        self._interrupts = 0
        self._interrupt_at = 0.0
        self._unsent = memoryview(b"")

    def on_cancel(self) -> Callable[[], None]:
        """Return what another thread is to do when the exchange is called off."""
        if self._kind != "cell":
            return self._child.kill
        self._of.hear()
        return self._of.ring

    def send(self, message: Mapping[str, Any], shared: Sequence[int]) -> End | None:
        """Begin to send; what does not fit into the socket goes as the child reads."""
        if self._kind == "cell" and (self._of.is_out_of_turn or self._has_spoken()):
            return "exit"
        self._unsent = memoryview(encode(message))
        try:
            if shared:
                self._child.channel.send_descriptors(self._unsent[:1], shared)
                self._unsent = self._unsent[1:]
        except OSError:
            return "exit"
        return self._send_more()

    def until(self, deadline: float) -> End:
        while True:
            now = time.monotonic()
            if now >= deadline:
                self._drain()
                return "timeout"
            until = deadline
            if self._interrupts:
                if now >= self._interrupt_at:
                    self._interrupt(now)
                until = min(deadline, self._interrupt_at)
            events = self._of.poll.poll((until - now) * 1000 + 1)
            for fd, happened in events:
                end = self._on_event(fd, happened)
                if end is not None:
                    # The poll looks at the channel first: when the one frame of a cell's answer had begun
                    # to come, what had been printed before it lay in the pipes.
                    is_silent = self._kind == "cell" and end == "reply" and len(events) == 1 and fd == self._of.channel
                    return end if is_silent else self._drain() or end

    def _on_event(self, fd: int, happened: int) -> End | None:
        if fd == self._of.channel:
            if happened & select.POLLOUT and (end := self._send_more()) is not None:
                return end
            return self._read_channel() if happened & ~select.POLLOUT else None
        if fd in self.printed:
            return self._read_stream(fd)
        if fd == self._of.interrupted:
            os.eventfd_read(fd)
            self._interrupt(time.monotonic())
            return None
        return self._read_channel() or "exit"  # the pidfd: its last words may still lie in the channel

    def _interrupt(self, now: float) -> None:
        """Send SIGINT, and again ever later: the first may have come before the child read its cell."""
        self._interrupts += 1
        self._interrupt_at = now + _INTERRUPT_AGAIN_S * 2**self._interrupts
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._child.pidfd, signal.SIGINT)

    def _send_more(self) -> End | None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._child.channel.send_some(self._unsent) :]
        except BlockingIOError:
            self._of.poll.modify(self._of.channel, select.POLLIN | select.POLLOUT)
            self._of.is_sending = True
            return None
        except OSError:
            return self._read_channel() or "exit"
        if self._of.is_sending:
            self._of.poll.modify(self._of.channel, select.POLLIN)
            self._of.is_sending = False
        return None

    def _has_spoken(self) -> bool:
        """Say whether a child that nothing was asked of has written a frame, or has ended."""
        try:
            self._child.channel.receive_some(1)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def _read_channel(self) -> End | None:
        while True:
            try:
                data = self._child.channel.receive_some(_READ_BYTES)
            except BlockingIOError:
                return None
            except OSError:
                data = b""
            if not data:  # closed by the guest: the process may go on, but can answer no more
                self._of.poll.unregister(self._of.channel)
                self._child.kill()
                return "exit"
            if (end := self._take_frames(data)) is not None:
                return end

    def _take_frames(self, data: bytes) -> End | None:
        try:
            messages = self._of.frames.feed(data)
            for index, message in enumerate(messages):
                if message.get("op") == "started" and not self.started:
                    self.started = True
                    self._watch.started()
                    if self._kind != "open":
                        continue
                elif not self.started:
                    continue
                self.reply = message
                self._of.is_out_of_turn = index + 1 < len(messages) or not self._of.frames.is_empty
                return "reply"
            if messages:
                self._of.frames.feed(b"")  # what came behind them may be no frame
        except FrameTooLarge:
            return "reply too large"
        except ProtocolError:
            return "malformed"
        return None

    def _read_stream(self, fd: int) -> End | None:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return None
        if not data:
            self._of.poll.unregister(fd)
            return None
        return self._keep(fd, data)

    def _keep(self, fd: int, data: bytes) -> End | None:
        kept = self.printed[fd]
        room = self._bounds.output_bytes - len(kept)
        part = data[:room]
        if part:
            kept += part
            self._watch.output(1 if fd == self._child.stdout_fd else 2, part)
        return "output" if len(data) > room else None

    def _drain(self) -> End | None:
        """Take what lies in the pipes now, and no more: what a guest prints after its reply is not waited for.

        Were they read until they are empty, a guest that goes on would end by its reply
        or by its cap, whichever came first.
        """
        for fd in self.printed:
            left = _readable_bytes(fd)
            while left > 0:
                try:
                    data = os.read(fd, min(left, _READ_BYTES))
                except OSError:
                    break
                if not data:
                    break
                left -= len(data)
                if (end := self._keep(fd, data)) is not None:
                    return end
        return None


def _readable_bytes(fd: int) -> int:
    """Return how much lies in a pipe; see FIONREAD in ioctl_tty(2), which pipe(7) has too."""
    size = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
    return int.from_bytes(size, sys.byteorder)
