"""The public client: start or join a supervisor, run code, map it, run plans."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import ray
from ray.exceptions import RayError

from runvisor.actors.settings import Observability
from runvisor.policies.errors import ConfigError, RunvisorError
from runvisor.policies.permissions import Permissions
from runvisor.policies.recording import Recording, Replay
from runvisor.policies.result import Result
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.trust import OnExcess, Trust
from runvisor.policies.values import Value
from runvisor.supervisor import recordings
from runvisor.supervisor.actor import SupervisorOptions
from runvisor.supervisor.async_client import AsyncClient
from runvisor.supervisor.attach import connect, require_counting, supervisor_actor, watched
from runvisor.supervisor.execution import Call, Execution, OnOutput, Output, output_events
from runvisor.supervisor.handle import Handle
from runvisor.supervisor.mapping import in_order, over_inputs
from runvisor.supervisor.observing import ObservingClient
from runvisor.supervisor.plan.outcome import PlanResult
from runvisor.supervisor.plan.run import Observer
from runvisor.supervisor.plan_client import run_plan
from runvisor.supervisor.request import AUTO, make_task, read_objective
from runvisor.supervisor.session import Session
from runvisor.supervisor.session_client import SessionClient
from runvisor.supervisor.shared import Shared
from runvisor.supervisor.streams import events_of

if TYPE_CHECKING:
    from runvisor.supervisor.record_stream import RecordStream

_MAX_PARALLEL: Final = 32


class Supervisor(AsyncClient, ObservingClient, SessionClient):
    """A handle on a running supervisor; safe to use from many threads.

    Use it as a context manager: leaving the block ends what `start` began.

    For example (run for real in tests/supervisor/test_client.py)::

        with Supervisor.start() as sv:
            sv.run("1 + 1", language="python").value
    """

    def __init__(self, handle: Handle, *, owns_supervisor: bool, owns_ray: bool) -> None:
        self._handle = handle
        self._owns_supervisor = owns_supervisor
        self._owns_ray = owns_ray
        self._threads = ThreadPoolExecutor(_MAX_PARALLEL, thread_name_prefix="runvisor")
        self._calls: set[Call] = set()
        self._sessions: WeakSet[Session] = WeakSet()
        self._closed = False

    @classmethod
    def start(
        cls,
        address: str | None = None,
        *,
        principal: str | None = None,
        trust: Trust | str = Trust.TRUSTED,
        permissions: Permissions | None = None,
        options: SupervisorOptions | None = None,
        observability: Observability | None = None,
        objective: Objective | str | None = None,
    ) -> Supervisor:
        """Start a supervisor on a local, embedded Ray, or join one on a cluster.

        Args:
            address: A Ray address, or None for an embedded Ray of this process.
                On a cluster the supervisor is shared: the first to come starts it.
            principal: On whose behalf tasks run; the user's name by default.
            trust: The ceiling of this handle: tasks may claim at most that.
            permissions: A permission ceiling for this handle.
            options: The operator's decisions; they count for the first to come only.
            observability: ``kernel`` has the kernel count what each execution does (``usage.kernel``), for a
                price that every process of the machine pays; None leaves that to ``options``.
            objective: What the choice of a runtime makes small for this handle's tasks, unless one says
                otherwise: see `run`. None is the mean of a task's time and its deviation.

        Raises:
            TrustViolation: The operator allows less trust.
            ConfigError: No Ray cluster answers at ``address``, the supervisor there counts nothing, or the
                objective is none.
        """
        wanted = read_objective(objective)
        options = watched(options or SupervisorOptions(), observability)
        owns_ray = connect(address)
        actor, is_new = supervisor_actor(options, shared=address is not None)
        if observability == "kernel" and not is_new:
            require_counting(actor)
        handle = Handle(actor, principal or getpass.getuser(), Trust.parse(trust), permissions, wanted)
        return cls(handle, owns_supervisor=is_new and address is None, owns_ray=owns_ray)

    def run(
        self,
        code: str | bytes,
        language: str = AUTO,
        *,
        inputs: Value = None,
        permissions: Permissions | Mapping[str, Any] | None = None,
        trust: Trust | str = Trust.UNTRUSTED,
        on_excess: OnExcess = "refuse",
        label: str = "",
        files: Mapping[str, bytes] | None = None,
        profile: str = "",
        objective: Objective | str | None = None,
        critical: bool = False,
        on_output: OnOutput | None = None,
    ) -> Result:
        """Run one piece of code in the sandbox that suits it.

        A guest that fails or goes over a limit is a result with an ``error``;
        what is refused or cannot be done raises. A caller that is interrupted here
        (Ctrl-C) calls the task off.

        Args:
            code: Source text, or the bytes of a wasm module.
            language: Its name, or ``auto`` to find out.
            inputs: What the guest sees as ``inputs``.
            permissions: What it may do; everything else is denied. Relative file patterns are
                meant from the present working directory, and the code starts there.
            trust: How far you vouch for it.
            on_excess: ``narrow`` takes away what is beyond a ceiling instead of refusing.
            label: A name for people.
            files: What Python finds under ``/in``, by relative path. What it leaves under
                ``/out`` comes back as the result's ``files``.
            profile: Which packages Python finds loaded: ``bare``, ``science``, or a name of the operator's
                (`RuntimeSettings.python_profiles`). The first task of one waits for its processes.
            objective: What the choice of a runtime is to make small: ``mean``, ``mean + 2*std``, ``slo 100ms``
                (the chance of taking longer), ``cvar 0.95``, ``throughput`` or ``cost python=2e-5``.
            critical: It must not be late: no runtime is tried on it merely to learn.
            on_output: Called with each `Output` as it is printed, in this thread; what it
                raises calls the task off and comes out of here.

        Raises:
            ConfigError: The task is malformed, or its language, profile or objective is unknown.
            PolicyError: It asks for more than it may have, or no runtime may run it.
            CapacityError: No instance came free in time.
            WorkerError: Our side failed, twice.
        """
        task, reason = make_task(
            code,
            language,
            inputs=inputs,
            permissions=permissions,
            trust=trust,
            label=label,
            files=files,
            profile=profile,
            objective=objective,
            critical=critical,
        )
        return self._handle.run(task, on_excess=on_excess, language_reason=reason, on_event=output_events(on_output))

    def record(self, code: str | bytes, language: str = AUTO, **options: Any) -> tuple[Result, Recording]:
        """Run one piece of code deterministically, and write down all that is needed to run it again.

        Args:
            code: As for `run`.
            language: As for `run`; one of those that wasm modules are made of.
            options: As for `run`: ``inputs``, ``permissions``, ``trust``, ``label``.

        Raises:
            NoEligibleArm: Nothing runs this language deterministically.
            InvalidTask: It was cut off by its deadline: that cannot be repeated.
        """
        task, reason = make_task(code, language, **options)
        return recordings.record(self._handle, task, reason)

    def replay(self, recording: bytes | Recording, *, ceiling: Permissions | None = None) -> Replay:
        """Run a recorded execution again, as untrusted code, and compare it bit for bit.

        Args:
            recording: What `record` returned, or its bytes; nothing in it is trusted.
            ceiling: The most that it may have; None is a minute and 1 GiB.

        Raises:
            InvalidTask: It is no recording.
            CapabilityDenied: It asks for more than the ceiling.
        """
        return recordings.replay(self._handle, recording, ceiling)

    def submit(self, code: str | bytes, language: str = AUTO, **options: Any) -> Execution:
        """Begin to run one piece of code, and return what follows it.

        At most 32 run at once for one supervisor handle; more wait their turn.

        Args:
            code: As for `run`.
            language: As for `run`.
            options: As for `run`; ``on_output`` is called in a thread of ours.

        Raises:
            ConfigError: The task is malformed, or its language is unknown.
        """
        on_excess: OnExcess = options.pop("on_excess", "refuse")
        on_event = output_events(options.pop("on_output", None))
        task, reason = make_task(code, language, **options)
        call = Call()
        future = self._threads.submit(
            self._handle.run, task, on_excess=on_excess, language_reason=reason, call=call, on_event=on_event
        )
        self._calls.add(call)
        future.add_done_callback(lambda _: self._calls.discard(call))
        return Execution(call, future)

    def stream(self, code: str | bytes, language: str = AUTO, **options: Any) -> Iterator[Output | Result]:
        """Run one piece of code; yields an `Output` for each piece that it prints, and the `Result` last.

        The task begins with the first step of the iteration. Leaving the iteration
        early, or closing it, calls the task off.

        Args:
            code: As for `run`.
            language: As for `run`.
            options: As for `run`, without ``on_output``.

        For example::

            for event in sv.stream("for n in range(3): print(n)", "python"):
                if isinstance(event, Output):
                    print(event.text, end="")
        """
        return events_of(lambda on_output: self.submit(code, language, **options, on_output=on_output))

    @staticmethod
    def share(value: Value) -> Shared:
        """Lay a large value out in memory once, to be an input of many executions.

        Args:
            value: Any value; see `Shared`.

        For example::

            with sv.share(table) as shared:
                sv.map("inputs['table'].sum() + inputs['n']", ({"table": shared, "n": n} for n in range(9)))
        """
        return Shared(value)

    def map(
        self,
        code: str | bytes | Iterable[str | bytes],
        inputs: Iterable[Value] | None = None,
        language: str = AUTO,
        *,
        max_parallel: int = 8,
        **options: Any,
    ) -> Iterator[Result]:
        """Run one piece of code on many inputs, or many pieces; results come in order.

        Takes what it is given as it goes, so either may be endless. One program of a
        language whose executions are short (wasm, WAT, C ...) goes on many inputs in one
        request, each execution as fresh, limited and apart as by `run`.

        Args:
            code: One source and ``inputs``, or an iterable of sources.
            inputs: One value per execution, when ``code`` is a single source.
            language: As for `run`.
            max_parallel: How many at once.
            options: As for `run`, for each.

        Yields:
            A result for each; what `run` would raise is raised when its turn comes.
        """
        if not isinstance(code, str | bytes):
            return in_order(code, lambda item: self.run(item, language, **options), max_parallel)
        if inputs is None:
            raise ConfigError("map needs inputs for a single source", "inputs", "pass inputs, or many sources")
        return over_inputs(self._handle, self.run, code, inputs, language, max_parallel, options)

    def records(self, code: str, chunks: Iterable[Any], **options: Any) -> RecordStream:
        """Run a record program over chunks of records, with its state carried from one to the next.

        Nothing runs before the first step of the iteration, and a chunk is taken only when its turn has come.

        Args:
            code: A program of the language ``c-record``.
            chunks: Arrays, bytes, or one array to be cut; see `RecordStream.open` for how.
            options: Those of `RecordStream.open` (``dtype``, ``state``, ``returns``), and as for `run`
                ``permissions``, ``trust``, ``on_excess`` and ``label``.

        For example::

            total = sv.records(code, numpy.load("events.npy", mmap_mode="r")).finish()["state"]["total"]
        """
        from runvisor.supervisor.record_stream import RecordStream  # it takes numpy, which few clients need

        return RecordStream.open(self._handle, code, chunks, **options)

    def plan(self, plan: str | Path, *, observer: Observer | None = None) -> PlanResult:
        """Run an agent's plan: a Markdown file, or the text of one.

        Args:
            plan: A path, or text with at least one line break.
            observer: Called with each event as it happens.

        Raises:
            InvalidPlan: It does not parse, has a cycle, or names a step that is not there.
        """
        return run_plan(self._handle, plan, observer)

    def describe(self) -> dict[str, Any]:
        """Return the supervision tree and what cannot run here, as plain data."""
        return self._handle.describe()

    def close(self) -> None:
        """Call off what runs, close every session, and end what `start` began; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        for call in list(self._calls):
            call.cancel()
        for session in list(self._sessions):
            session.close()
        self._threads.shutdown(wait=True)
        self._handle.close()
        if self._owns_supervisor:
            with contextlib.suppress(RayError, RunvisorError):
                ray.get(self._handle.supervisor.close.remote(), timeout=30)
            ray.kill(self._handle.supervisor)
        if self._owns_ray:
            ray.shutdown()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
