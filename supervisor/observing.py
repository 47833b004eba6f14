"""The client's end of an observation: ask the kernel's pool, follow it, return its table."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self

from runvisor.actors.channel.frames import Message
from runvisor.policies.errors import ProtocolError
from runvisor.policies.observations import MAX_DURATION_S, ObservationRequest, ObservedTable
from runvisor.supervisor.execution import Call
from runvisor.supervisor.handle import Handle

_RUNTIME: Final = "ebpf"


class Observation:
    """An observation on its way; made by `Supervisor.observing`.

    As a context manager it begins before the block does, and ends with it.

    Args:
        handle: On whose behalf.
        request: What to observe.
    """

    def __init__(self, handle: Handle, request: ObservationRequest) -> None:
        self._call = Call()
        self._future: Future[ObservedTable] = Future()
        self._has_begun = threading.Event()
        self.request: Final = request
        self.since: float | None = None
        """When it began, by the monotonic clock; None until then."""
        self._future.add_done_callback(lambda _: self._has_begun.set())
        threading.Thread(target=self._run, args=(handle,), name="observation", daemon=True).start()

    def wait(self) -> None:
        """Wait until it has begun: what happens from now on is seen.

        Raises:
            RunvisorError: It could not begin.
        """
        self._has_begun.wait()
        if self._future.done():
            self._future.result()

    def stop(self) -> None:
        """End it now, with what was seen until then; harmless when it is over."""
        if not self._future.done():
            self._call.cancel()

    def done(self) -> bool:
        """Whether `result` would return, or raise, at once."""
        return self._future.done()

    def result(self, timeout_s: float | None = None) -> ObservedTable:
        """Wait for its end and return the table.

        A caller that is interrupted here (Ctrl-C) ends it.

        Args:
            timeout_s: How long to wait; it goes on after that. None waits until it ends.

        Raises:
            TimeoutError: It is not over yet.
            RunvisorError: What it failed with.
        """
        try:
            return self._future.result(timeout_s)
        except TimeoutError:
            raise
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, handle: Handle) -> None:
        try:
            request = {"op": "observe", "observation": self.request.to_wire()}
            answer = handle.ask_runtime(_RUNTIME, request, call=self._call, on_event=self._hear)
            if answer.get("op") != "observed":
                raise ProtocolError(f"the pool answered with {answer.get('op')!r}", _RUNTIME)
            self._future.set_result(ObservedTable.from_wire(answer.get("table")))
        except BaseException as error:
            self._future.set_exception(error)

    def _hear(self, event: Message) -> None:
        if event.get("op") == "started" and self.since is None:
            self.since = time.monotonic()
            self._has_begun.set()


class ObservingClient:
    """What a client may see of running processes."""

    _handle: Handle

    def observe(self, what: str, *, pid: int, duration_s: float = 5.0, follow: bool = True) -> ObservedTable:
        """Watch what a process asks of the kernel for a while, without stopping or changing it.

        It takes a ceiling of ``trusted``: an observer sees what another process does.

        Args:
            what: ``syscalls``, ``sched``, ``files`` or ``io``; see `BUILT_INS`.
            pid: The process, on the node of the ``ebpf`` pool; with its threads.
            duration_s: How long; it ends earlier when nothing of the process is left.
            follow: Also its descendants, those to come included.

        Returns:
            The table, as rows, dicts or a numpy array.

        Raises:
            ConfigError: There is no such process or observation.
            TrustViolation: This handle's ceiling is too low.
            SpawnFailed: This machine does not let us; says what is missing and how to get it.

        For example::

            table = sv.observe("syscalls", pid=4242, duration_s=2)
            table.to_dicts()[0]["syscall"]
        """
        return self.observing(what, pid=pid, duration_s=duration_s, follow=follow).result()

    def observing(self, what: str, *, pid: int, duration_s: float = MAX_DURATION_S, follow: bool = True) -> Observation:
        """Begin to observe a process, and return what follows it.

        Args:
            what: As for `observe`.
            pid: As for `observe`.
            duration_s: The longest it lasts.
            follow: As for `observe`.

        Raises:
            ConfigError: The request is malformed. Whatever else fails, `Observation.result` raises.

        For example::

            with sv.observing("files", pid=os.getpid()) as observation:
                work()
            print(observation.result().to_dicts())
        """
        return Observation(self._handle, ObservationRequest(what, pid, duration_s, follow))

    async def aobserve(self, what: str, **options: Any) -> ObservedTable:
        """The async twin of `observe`; a coroutine that is cancelled ends it."""
        options.setdefault("duration_s", 5.0)
        observation = self.observing(what, **options)
        try:
            return await asyncio.to_thread(observation.result)
        except asyncio.CancelledError:
            observation.stop()
            raise
