"""The client's end of an observation: ask the kernel's pool, follow it, return its table."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self

from runvisor.actors.channel.frames import Message
from runvisor.policies.errors import ConfigError, ProtocolError
from runvisor.policies.event_programs import parse_program
from runvisor.policies.observations import MAX_DURATION_S, PROGRAM, ObservationRequest, ObservedTable
from runvisor.policies.result import Result
from runvisor.policies.values import Value
from runvisor.supervisor.execution import Call
from runvisor.supervisor.handle import Handle
from runvisor.supervisor.request import make_task
from runvisor.supervisor.session import NO_CODE, Session

_RUNTIME: Final = "ebpf"


class Observation:
    """An observation on its way; made by `Supervisor.observing`.

    As a context manager it begins before the block does, and ends with it.

    Args:
        handle: On whose behalf.
        request: What to observe.
        ticket: Says that the process is our own execution.
    """

    def __init__(self, handle: Handle, request: ObservationRequest, ticket: bytes | None = None) -> None:
        self._call = Call()
        self._future: Future[ObservedTable] = Future()
        self._has_begun = threading.Event()
        self.request: Final = request
        self.since: float | None = None
        """When it began, by the monotonic clock; None until then."""
        self._future.add_done_callback(lambda _: self._has_begun.set())
        threading.Thread(target=self._run, args=(handle, ticket), name="observation", daemon=True).start()

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

    def _run(self, handle: Handle, ticket: bytes | None) -> None:
        try:
            request = {"op": "observe", "observation": self.request.to_wire(), "ticket": ticket}
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

    def observe(
        self,
        what: str | None = None,
        *,
        pid: int,
        duration_s: float = 5.0,
        follow: bool = True,
        program: str | None = None,
    ) -> ObservedTable:
        """Watch what a process asks of the kernel for a while, without stopping or changing it.

        It takes a ceiling of ``trusted``: an observer sees what another process does.

        Args:
            what: ``syscalls``, ``sched``, ``files`` or ``io``; see `BUILT_INS`.
            pid: The process, on the node of the ``ebpf`` pool; with its threads.
            duration_s: How long; it ends earlier when nothing of the process is left.
            follow: Also its descendants, those to come included.
            program: Instead of ``what``, an event program of one's own in C; see
                `runvisor.policies.event_programs`.

        Returns:
            The table, as rows, dicts or a numpy array.

        Raises:
            ConfigError: There is no such process, observation or tracepoint.
            GuestSyntaxError: The program does not compile, or is not safe.
            CapabilityDenied: The program calls the kernel.
            TrustViolation: This handle's ceiling is too low.
            SpawnFailed: This machine does not let us; says what is missing and how to get it.

        For example::

            table = sv.observe("syscalls", pid=4242, duration_s=2)
            table.to_dicts()[0]["syscall"]
        """
        return self.observing(what, pid=pid, duration_s=duration_s, follow=follow, program=program).result()

    def observing(
        self,
        what: str | None = None,
        *,
        pid: int | None = None,
        session: Session | None = None,
        duration_s: float = MAX_DURATION_S,
        follow: bool = True,
        program: str | None = None,
    ) -> Observation:
        """Begin to observe a process or a session of ours, and return what follows it.

        A session of our own takes a ceiling of ``verified``, or ``trusted`` with a program of
        one's own. What its sandbox does to take cells and to answer is seen too.

        Args:
            what: As for `observe`.
            pid: A process.
            session: Or a session.
            duration_s: The longest it lasts.
            follow: As for `observe`.
            program: As for `observe`.

        Raises:
            ConfigError: The request is malformed.
            GuestSyntaxError: The program's text holds what the language does not have.
                Whatever else fails, `Observation.result` raises.
            SessionLost: The session is gone.

        For example::

            with sv.session("python") as session, sv.observing("files", session=session) as observation:
                session.run("open('/etc/hostname').read()")
            print(observation.result().to_dicts())
        """
        ticket: bytes | None = None
        if (pid is None) == (session is None):
            raise ConfigError("observe either a process or a session", "pid", "pass pid or session")
        if session is not None:
            pid, ticket = session.process()
        assert pid is not None
        return Observation(self._handle, observation_of(what, pid, duration_s, follow=follow, program=program), ticket)

    def observe_run(
        self,
        what: str | None,
        code: str,
        language: str,
        *,
        inputs: Value = None,
        program: str | None = None,
        **options: Any,
    ) -> tuple[Result, ObservedTable]:
        """Run one piece of code and observe its sandbox from its first step to its last.

        It runs as the only cell of a session, for an observer must be there before the
        code: Python, JavaScript and TypeScript have them. It takes a ceiling of ``verified``,
        or ``trusted`` with a program of one's own.

        Args:
            what: As for `observe`.
            code: Source text.
            language: Its name.
            inputs: What the code sees as ``inputs``.
            program: As for `observe`.
            options: As for `Supervisor.session`: ``permissions``, ``trust``, ``label``, ``profile``.

        Raises:
            RunvisorError: What `Supervisor.session`, `Session.run` or `observe` would raise.

        For example::

            result, table = sv.observe_run("syscalls", "sum(inputs)", "python", inputs=[1, 2])
        """
        task, _ = make_task(NO_CODE, language, **options)
        with Session.open(self._handle, task, on_excess="refuse", idle_timeout_s=None) as session:
            with self.observing(what, session=session, program=program) as observation:
                result = session.run(code, inputs)
            return result, observation.result()

    async def aobserve(self, what: str | None = None, **options: Any) -> ObservedTable:
        """The async twin of `observe`; a coroutine that is cancelled ends it."""
        options.setdefault("duration_s", 5.0)
        observation = self.observing(what, **options)
        try:
            return await asyncio.to_thread(observation.result)
        except asyncio.CancelledError:
            observation.stop()
            raise


def observation_of(
    what: str | None, pid: int, duration_s: float, *, follow: bool, program: str | None
) -> ObservationRequest:
    """Return a request, refusing before it is sent what can be told from its text.

    Raises:
        ConfigError: It is malformed, or names both a built-in observation and a program, or neither.
        GuestSyntaxError: The program's text holds what the language does not have.
    """
    if (what is None) == (program is None):
        raise ConfigError("observe either what is built in or by a program", "what", "pass what or program")
    request = ObservationRequest(what or PROGRAM, pid, duration_s, follow, program)
    if program is not None:
        parse_program(program)
    return request
