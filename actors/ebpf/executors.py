"""The executors of one tier: each bound to one principal, each lent to one execution at a time."""

from __future__ import annotations

import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.frames import MAX_FRAME_BYTES, FrameBuffer, Message, encode
from runvisor.actors.ebpf.answers import checked_load
from runvisor.actors.ebpf.loaded import LoadedProgram, LoadedPrograms
from runvisor.actors.ebpf.placement import Placement
from runvisor.actors.ebpf.work import SHORT_RUN, Work
from runvisor.actors.instances import InstancePool
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.runtime import Load, PoolSize
from runvisor.actors.waiting import WaitingLine
from runvisor.policies.errors import ProtocolError, SpawnFailed, WorkerCrashed
from runvisor.policies.permissions import MiB

_GUEST: Final = "runvisor.actors.ebpf.executor"
_MEMORY_BYTES: Final = 1024 * MiB
"""For an executor's maps and the verifier."""
_START_S: Final = 10.0
_GRACE_S: Final = 0.25
"""How long past its deadline an executor may take to say so, before it is killed."""
_EXIT_S: Final = 1.0
_READ_BYTES: Final = 1 << 16
_FRESH: Final = 2
"""Executors kept ready for principals that have none yet."""


class Executor:
    """The pool's end of one executor process.

    Args:
        child: A sealed child that runs `runvisor.actors.ebpf.executor`.

    Raises:
        SpawnFailed: It does not come up.
    """

    def __init__(self, child: Child) -> None:
        self._child = child
        self._channel = child.channel
        self._numbers = itertools.count()
        self._frames = FrameBuffer(max_bytes=MAX_FRAME_BYTES)
        self._answers: deque[Message] = deque()
        self._placement = Placement(child.pid)
        self._loaded = LoadedPrograms()
        self._loading = False
        self._has_started = False
        self._poll = select.poll()
        self._poll.register(child.channel.fileno(), select.POLLIN)
        self._writable = select.poll()
        self._writable.register(child.channel.fileno(), select.POLLOUT)
        self.dead = False
        try:
            self._channel.settimeout(_START_S)
            hello = self._channel.receive()
            self._channel.settimeout(None)
        except (OSError, ProtocolError) as error:
            self.close()
            raise SpawnFailed(f"an executor did not come up: {error}", "ebpf") from None
        if hello is None:
            self.close()
            raise SpawnFailed("an executor ended before its first task", "ebpf")

    @property
    def pid(self) -> int:
        """The process, as this side sees it."""
        return self._child.pid

    def holds(self, artifact: Hashable) -> bool:
        """Whether a program is loaded here already."""
        return artifact in self._loaded

    def check(self) -> bool:
        """Say whether it still waits for work; what is readable now is its end."""
        self.dead = self.dead or bool(self._poll.poll(0))
        return not self.dead

    def run(self, work: Work, deadline: float, on_started: Callable[[], None]) -> Message:
        """Run one execution; on anything but an orderly answer the executor is `dead`.

        Args:
            work: What to run.
            deadline: By `time.monotonic`.
            on_started: Called when the program is loaded, before the executor gets anything to run.

        Returns:
            The executor's answer; ``{"op": "silent"}`` if it must be killed at the deadline,
            ``{"op": "out of memory"}`` if its cgroup was full.

        Raises:
            WorkerCrashed: The process died; ``started`` in the details.
        """
        if not self.check():
            raise WorkerCrashed("the executor died while it waited", "ebpf", "", {"started": False})
        self.dead, self._has_started = True, False
        try:
            with self._placement.on_one_core(work.instructions <= SHORT_RUN):
                answer = self._run(work, deadline, on_started)
        except TimeoutError:
            return {"op": "silent"}
        except (OSError, ProtocolError) as error:
            end = self._child.exit(_EXIT_S)
            if end is not None and end.oom_killed:
                return {"op": "out of memory", "loading": self._loading}
            raise WorkerCrashed(f"the executor failed: {error}", "ebpf", "", {"started": self._has_started}) from None
        self.dead = False
        return answer

    def close(self) -> None:
        """End the process, and with it every map and program; closing twice is fine."""
        self.dead = True
        self._child.close()
        self._loaded.close()

    def _run(self, work: Work, deadline: float, on_started: Callable[[], None]) -> Message:
        loaded = self._loaded.find(work.artifact, work.room)
        start_kind = "warm"
        if loaded is None:
            start_kind = "cold"
            loaded, refusal = self._load(work, deadline)
            if loaded is None:
                return refusal
        self._has_started = True
        on_started()
        return {**work.run(loaded, _Ask(self, loaded.number, deadline)), "start_kind": start_kind}

    def _load(self, work: Work, deadline: float) -> tuple[LoadedProgram | None, Message]:
        """Have a program loaded, and map its input."""
        for surplus in self._loaded.surplus(work.artifact, work.needed_bytes):
            surplus.close()
            self.send({"op": "unload", "program": surplus.number}, deadline)
        number = next(self._numbers)
        self.send({"op": "load", "program": number, **work.load_message()}, deadline)
        self._loading = True
        answer, fds = self._channel.receive_with_fds(work.shared_maps, deadline=deadline + _GRACE_S)
        self._loading = False
        self._channel.settimeout(None)
        try:
            if answer is None:
                raise ProtocolError("it ended within a task", "ebpf")
            if checked_load(answer)["op"] != "loaded":
                return None, answer
            if len(fds) != work.shared_maps:
                raise ProtocolError(f"it shares {len(fds)} maps, not {work.shared_maps}", "ebpf")
            mapped, fds = fds, []
        finally:
            for fd in fds:
                os.close(fd)
        loaded = work.loaded(number, mapped)
        self._loaded.add(work.artifact, loaded)
        return loaded, answer

    def send(self, request: Message, deadline: float) -> None:
        """Send a message, for `Work` that runs here; a short one goes with one system call."""
        unsent = memoryview(encode(request))
        while unsent:
            try:
                unsent = unsent[self._channel.send_some(unsent) :]
            except BlockingIOError:
                _wait(self._writable, deadline)

    def answer(self, deadline: float) -> Message:
        """Wait for one answer, with few system calls: this is the hot path."""
        fd = self._channel.fileno()
        while not self._answers:
            _wait(self._poll, deadline)
            data = os.read(fd, _READ_BYTES)
            if not data:
                raise ProtocolError("it ended within a task", "ebpf")
            self._answers.extend(self._frames.feed(data))
        return self._answers.popleft()


def _wait(ready: select.poll, deadline: float) -> None:
    """Wait for the executor.

    Raises:
        TimeoutError: It is silent, a moment beyond the deadline.
    """
    left_s = deadline + _GRACE_S - time.monotonic()
    if left_s <= 0 or not ready.poll(left_s * 1000):
        raise TimeoutError


class _Ask:
    """See `runvisor.actors.ebpf.work.Ask`."""

    def __init__(self, executor: Executor, program: int, deadline: float) -> None:
        self._executor = executor
        self._program = program
        self._deadline = deadline

    def __call__(self, request: Message) -> Message:
        self.send(request)
        return self.answer()

    def send(self, request: Message) -> None:
        self._executor.send({**request, "program": self._program, "deadline": self._deadline}, self._deadline)

    def answer(self) -> Message:
        return self._executor.answer(self._deadline)


class Executors:
    """All executors of one tier.

    Args:
        name: The tier's name.
        capabilities: What its processes keep.
        kernel_functions: BTF ids by stand-in number.
        size: How many at most, and how long to wait for one.
    """

    def __init__(
        self, name: str, capabilities: frozenset[str], kernel_functions: Mapping[int, int], size: PoolSize
    ) -> None:
        options: dict[str, Any] = {"kernel_functions": {str(key): value for key, value in kernel_functions.items()}}
        self._size = size
        self._zygote = Zygote(
            JailSpec(f"ebpf-{name}", _GUEST, options=options, capabilities=capabilities, syscalls="bpf", cores=None)
        )
        self._fresh: InstancePool[Executor] = InstancePool(
            self._make,
            Executor.close,
            PoolSize(minimum=min(size.minimum, _FRESH), maximum=size.maximum, wait_s=size.wait_s),
        )
        self._changed = threading.Condition()
        self._kept: list[_Kept] = []
        self._line = WaitingLine(self._changed, size.max_waiting, "executor")

    def start(self) -> None:
        """Start the zygote and the first executor.

        Raises:
            SpawnFailed: It cannot run here.
        """
        self._zygote.start()
        self._fresh.start()

    @contextmanager
    def lend(
        self, principal: str, artifact: Hashable | None = None, cancellation: Cancellation | None = None
    ) -> Iterator[Executor]:
        """Lend an executor that has served nobody but this principal.

        Args:
            principal: On whose behalf.
            artifact: A program that it had better hold already.
            cancellation: Ends the waiting at once.

        Raises:
            Cancelled: It was called off; no executor was taken.
            PoolExhausted: All are busy.
            QueueFull: Too many callers wait already.
            SpawnFailed: None can be made.
        """
        kept = self._take(principal, artifact, cancellation)
        try:
            yield kept.executor
        finally:
            with self._changed:
                kept.busy = False
                stays = self._forget(kept) and not kept.executor.dead
                if stays:
                    self._kept.append(kept)  # the first ones are those idle longest
                self._changed.notify_all()
            if not stays:
                kept.stack.close()

    def load(self) -> Load:
        """Return how busy the tier is."""
        with self._changed:
            busy = sum(kept.busy for kept in self._kept)
            return Load(self._fresh.load().idle + len(self._kept) - busy, busy, self._line.length)

    def close(self) -> None:
        """End every executor and the zygote; closing twice is fine."""
        with self._changed:
            kept, self._kept = self._kept, []
        for each in kept:
            each.stack.close()
        self._fresh.close()
        self._zygote.close()

    def _make(self) -> Executor:
        return Executor(self._zygote.spawn(memory_bytes=_MEMORY_BYTES))

    def _take(self, principal: str, artifact: Hashable | None, cancellation: Cancellation | None) -> _Kept:
        deadline = time.monotonic() + self._size.wait_s
        while True:
            evicted: _Kept | None = None
            with self._changed:
                idle = [kept for kept in self._kept if kept.principal == principal and not kept.busy]
                chosen = next((kept for kept in idle if artifact is not None and kept.executor.holds(artifact)), None)
                chosen = chosen or next(iter(idle), None)
                if chosen is not None:
                    chosen.busy = True
                    return chosen
                if len(self._kept) >= self._size.maximum:
                    evicted = next((kept for kept in self._kept if not kept.busy), None)
                    if evicted is None:
                        left_s = deadline - time.monotonic()
                        self._line.wait_until(self._has_room, left_s, self._state, cancellation)
                        continue
                    self._kept.remove(evicted)
                made = _Kept(principal)
                self._kept.append(made)
            try:
                if evicted is not None:
                    evicted.stack.close()
                made.executor = made.stack.enter_context(self._fresh.lend(cancellation=cancellation))
            except BaseException:
                with self._changed:
                    self._forget(made)
                    self._changed.notify_all()
                raise
            return made

    def _forget(self, kept: _Kept) -> bool:
        """Take one out of those that are kept; return whether it was there: `close` has taken out all."""
        if kept not in self._kept:
            return False
        self._kept.remove(kept)
        return True

    def _has_room(self) -> bool:
        return len(self._kept) < self._size.maximum or any(not kept.busy for kept in self._kept)

    def _state(self) -> str:
        return f"{len(self._kept)} busy"


class _Kept:
    """An executor that is bound to a principal, and what ends it."""

    def __init__(self, principal: str) -> None:
        self.principal = principal
        self.stack = ExitStack()
        self.busy = True
        self.executor: Executor
