"""The pool's side of one observation: what the process is told, and its table, which is not believed."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, TypeVar, cast

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.frames import FrameBuffer, Message, decode_report
from runvisor.actors.ebpf.observe import harness
from runvisor.actors.ebpf.observe.agreement import MAX_THREADS, MESSAGE_BYTES
from runvisor.actors.ebpf.observe.program import Entry, ObservationProgram
from runvisor.actors.ebpf.observe.targets import threads_of
from runvisor.actors.jail.child import Child
from runvisor.actors.process_birth import process_birth
from runvisor.policies.errors import ConfigError, MemoryLimitExceeded, ProtocolError, SpawnFailed, WorkerCrashed
from runvisor.policies.observations import Cell, Ended, ObservationRequest, ObservedTable

_START_S: Final = 10.0
_GRACE_S: Final = 5.0
"""How long past its time the process may take to hand over the table, before it is killed."""
_FRAME_BYTES: Final = 4 * MESSAGE_BYTES
_READ_BYTES: Final = 1 << 16
_LARGEST: Final = 2**63 - 1
_T = TypeVar("_T", bound=Cell)
OpenEvents = Callable[[], AbstractContextManager[Sequence[int]]]
"""Opens events, for as long as a block runs."""


def no_events() -> AbstractContextManager[Sequence[int]]:
    """Open nothing."""
    return contextlib.nullcontext(())


class ObservingProcess:
    """The pool's end of a process that makes one observation. Everything that it says may be a lie.

    Args:
        child: A sealed child that runs `runvisor.actors.ebpf.observe.executor`; it stays the caller's.
        request: What is observed.
        birth: Which process the request's number stands for; see `process_birth`.
        program: How.
        cores: For how many cores the kernel keeps values.
    """

    def __init__(
        self, child: Child, request: ObservationRequest, birth: str, program: ObservationProgram, cores: int
    ) -> None:
        self._child = child
        self._request = request
        self._birth = birth
        self._program = program
        self._cores = cores
        self._frames = FrameBuffer(max_bytes=_FRAME_BYTES, decode=decode_report)
        self._heard: list[Message] = []
        self._entries: list[Entry] = []

    def run(
        self,
        codes: Mapping[str, bytes],
        cancellation: Cancellation,
        on_started: Callable[[], None],
        events: OpenEvents = no_events,
    ) -> ObservedTable:
        """Observe until the time is over, the target has ended, or it is called off.

        Args:
            codes: The programs' instructions, by function.
            cancellation: Ends it early, with what was seen until then.
            on_started: Called when the first event will be seen.
            events: Opens the events of the hooks that have no name, in their order; the process gets copies,
                and nobody else keeps one.

        Raises:
            ConfigError: The target has ended, or is too large.
            SpawnFailed: The kernel does not take the programs.
            MemoryLimitExceeded: Or has no memory for the tables.
            WorkerCrashed: The process died or lied.
        """
        request, program = self._request, self._program
        start_by = time.monotonic() + _START_S
        message = {
            "op": "observe",
            "programs": [
                [int(hook.kind), hook.event, codes[hook.function]] for hook in harness.with_tracking(program.hooks)
            ],
            "key_bytes": program.key_bytes,
            "value_bytes": program.value.size,
            "pending_bytes": program.pending_bytes,
            "entries": program.entries,
            "follow": request.follow,
        }
        with events() as opened:
            self._send(message, opened)
        self._expect("attached", start_by)
        self._follow(start_by)
        began = time.monotonic()
        self._send({"op": "begin", "until_ns": int((began + request.duration_s) * 1e9)})
        self._expect("following", start_by)
        on_started()
        until = began + request.duration_s
        if not self._has_ended_by(until, cancellation):
            with contextlib.suppress(WorkerCrashed):  # it may just have ended by itself; its table says it
                self._send({"op": "stop"})
        ended: Ended = "time" if time.monotonic() >= until else "stopped"
        duration_s = min(time.monotonic(), until) - began
        last = self._receive_table(time.monotonic() + _GRACE_S)
        if last.get("ended") == "target":
            ended = "target"
        lost = last.get("lost")
        return ObservedTable(
            request.what,
            program.columns,
            tuple(tuple(map(_bounded, row)) for row in program.rows(self._entries)),
            request.pid,
            duration_s,
            ended,
            _bounded(lost) if isinstance(lost, int) and lost >= 0 else 0,
        )

    def _follow(self, start_by: float) -> None:
        """Have all threads followed, also those that came meanwhile, and none that had ended when it was told.

        The programs that see threads begin and end are attached. Whoever is listed after it
        was told will be seen to end; the others may have ended before, and their numbers be others'.
        """
        known: frozenset[int] = frozenset()
        while True:
            listed = self._listed()
            new = listed - known
            known |= new
            if len(listed) > MAX_THREADS // 2:
                raise ConfigError(
                    f"the process has more than {MAX_THREADS // 2} threads", "pid", "observe a smaller one"
                )
            # Threads of those that are followed are followed already: one that always starts others ends this too.
            if not new or not self._tell(new, frozenset(), start_by):
                break
            if time.monotonic() > start_by:
                raise ConfigError("the process starts others faster than they can be followed", "pid")
        gone = known - listed
        while gone:
            self._tell(frozenset(), gone, start_by)
            back = gone & self._listed()  # a new thread of the target, which lost its mark just now
            self._tell(back, frozenset(), start_by)
            gone = back - self._listed()
        if not listed:
            raise self._has_ended()

    def _listed(self) -> frozenset[int]:
        """Return the threads to follow, if the process is still the one that was asked for."""
        threads = threads_of(self._request.pid, follow=self._request.follow)
        if process_birth(self._request.pid) != self._birth:
            raise self._has_ended()
        return threads

    def _tell(self, threads: frozenset[int], gone: frozenset[int], start_by: float) -> int:
        """Return how many of the threads were not followed before."""
        self._send({"op": "follow", "threads": sorted(threads), "gone": sorted(gone)})
        new = self._expect("following", start_by).get("new")
        if not isinstance(new, int):
            raise self._lie("no count of threads")
        return new

    def _has_ended(self) -> ConfigError:
        return ConfigError(f"process {self._request.pid} has ended", "pid", "observe it while it runs")

    def _has_ended_by(self, until: float, cancellation: Cancellation) -> bool:
        """Wait for the process's word that it is over; false when it is to be told."""
        poll = select.poll()
        poll.register(self._child.channel.fileno(), select.POLLIN)
        poll.register(cancellation.fileno(), select.POLLIN)
        while not self._heard:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            for fd, _ in poll.poll(left_s * 1000 + 1):
                if fd != self._child.channel.fileno():
                    return False
                self._read()
        return True

    def _receive_table(self, deadline: float) -> Message:
        key_bytes, value_bytes = self._program.key_bytes, self._program.value.size * self._cores
        while True:
            message = self._next(deadline)
            if message.get("op") == "done":
                return message
            keys, values = message.get("keys"), message.get("values")
            if message.get("op") != "entries" or not isinstance(keys, bytes) or not isinstance(values, bytes):
                raise self._failure(message)
            count = len(keys) // key_bytes
            if len(keys) != count * key_bytes or len(values) != count * value_bytes:
                raise self._lie("entries of another size")
            if len(self._entries) + count > self._program.entries:
                raise self._lie("more entries than the table holds")
            size = self._program.value.size
            for index in range(count):
                cores = values[index * value_bytes : (index + 1) * value_bytes]
                key = keys[index * key_bytes : (index + 1) * key_bytes]
                self._entries.append((key, [cores[at : at + size] for at in range(0, value_bytes, size)]))

    def _expect(self, op: str, deadline: float) -> Message:
        message = self._next(deadline)
        if message.get("op") != op:
            raise self._failure(message)
        return message

    def _next(self, deadline: float) -> Message:
        poll = select.poll()
        poll.register(self._child.channel.fileno(), select.POLLIN)
        while not self._heard:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not poll.poll(left_s * 1000):
                raise self._lie("nothing in time")
            self._read()
        return self._heard.pop(0)

    def _read(self) -> None:
        try:
            data = self._child.channel.receive_some(_READ_BYTES)
            self._heard += self._frames.feed(data)  # also of nothing: it then says what was wrong before
            if not data:
                raise self._gone()
        except BlockingIOError:
            return
        except ProtocolError as error:
            raise self._lie(str(error)) from None
        except OSError:
            raise self._gone() from None

    def _send(self, message: Message, fds: Sequence[int] = ()) -> None:
        try:
            self._child.channel.send(message, fds)
        except OSError:
            raise self._gone() from None

    def _failure(self, message: Message) -> WorkerCrashed | MemoryLimitExceeded | SpawnFailed:
        if message.get("op") == "no memory":
            return MemoryLimitExceeded("the kernel has no memory for the observation's tables", "memory_bytes")
        said = str(message.get("log") or message.get("what") or message.get("op"))[-2000:]
        if message.get("op") in ("failed", "refused"):
            return SpawnFailed(
                "the kernel does not take the observation's programs",
                "ebpf/observe",
                "it needs CAP_BPF, CAP_PERFMON and the tracepoints of CONFIG_FTRACE_SYSCALLS",
                {"log": said, "verifier": message.get("op") == "refused"},
            )
        return self._lie(said)

    @staticmethod
    def _lie(what: str) -> WorkerCrashed:
        return WorkerCrashed(f"the observing process answered with {what}", "ebpf/observe", "", {"started": True})

    def _gone(self) -> WorkerCrashed:
        end = self._child.exit(1.0)
        how = "" if end is None else f" (signal {end.signal}, status {end.status})"
        said = b""
        with contextlib.suppress(OSError):
            said = os.read(self._child.stderr_fd, 1000)
        details = {"started": True, "stderr": said.decode(errors="replace")}
        return WorkerCrashed(f"the observing process died{how}", "ebpf/observe", "", details)


def _bounded(cell: _T) -> _T:
    """Return a cell that fits into 64 bits; sums of what a lying process sent may not."""
    return cast(_T, min(cell, _LARGEST)) if isinstance(cell, int) else cell
