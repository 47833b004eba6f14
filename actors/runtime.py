"""The protocol that every runtime implements, and what it reports of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.witness.counting import Witnessing
from runvisor.policies.errors import Cancelled
from runvisor.policies.observations import ObservationRequest, ObservedTable
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant
from runvisor.policies.values import Packed, is_number
from runvisor.policies.witness import KernelUsage


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a runtime can run on this machine, found by trying, not by guessing."""

    runtime: str
    available: bool
    detail: str
    """One line for people: what was found, or what is missing."""
    remedy: str = ""
    """One line: how to get what is missing."""
    unavailable_variants: tuple[tuple[str, str], ...] = ()
    """(variant, reason) pairs for variants that cannot run although the runtime can."""
    missing_layers: tuple[str, ...] = ()
    """What should be around untrusted code and cannot be had here; it is refused for want of it."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a pool is, sent back with every reply."""

    idle: int = 0
    """Warm instances that wait for a task."""
    busy: int = 0
    """Instances that run one."""
    waiting: int = 0
    """Callers that wait for an instance."""
    backlog_s: float = 0.0
    """Seconds of work that are expected to be queued or running; 0 is unknown."""
    at: float = 0.0
    """When it was heard, in Unix seconds, by the hearer's clock; 0 is just now. It does not travel."""
    turnaround_s: float = 0.0
    """How long an execution takes its place beyond its running, as was seen while callers waited: where each
    instance serves once, until there is a new one. It is part of ``backlog_s``."""

    def to_wire(self) -> dict[str, float]:
        """Return plain data; it goes with every reply, so without `dataclasses.asdict`, which copies deeply."""
        return {
            "idle": self.idle,
            "busy": self.busy,
            "waiting": self.waiting,
            "backlog_s": self.backlog_s,
            "turnaround_s": self.turnaround_s,
        }

    @classmethod
    def from_wire(cls, data: object) -> Load | None:
        """Return the load that a pool's answer bears, or None if it bears none.

        Example:
            >>> Load.from_wire(Load(3, 1).to_wire()) == Load(3, 1), Load.from_wire({"idle": "many"})
            (True, None)
        """
        if not isinstance(data, Mapping):
            return None
        said: list[Any] = [data.get(name) for name in _TRAVELS]
        if not all(is_number(value) and 0 <= value <= _MOST for value in said):
            return None
        idle, busy, waiting, backlog_s, turnaround_s = said
        return cls(int(idle), int(busy), int(waiting), float(backlog_s), turnaround_s=float(turnaround_s))


_TRAVELS: Final = ("idle", "busy", "waiting", "backlog_s", "turnaround_s")
_MOST: Final = 1e9
"""No pool has so many instances or so many seconds of work; what is reckoned from less stays finite."""


@dataclass(frozen=True, slots=True)
class PoolSize:
    """How many instances a runtime keeps."""

    minimum: int = 4
    """Warm instances kept ready."""
    maximum: int = 16
    """Instances alive at once, idle and busy together."""
    wait_s: float = 30.0
    """How long a caller may wait for an instance before `PoolExhausted`."""
    max_waiting: int = 256
    """Callers that may wait at once; one more gets `QueueFull`."""


def _ignore_start() -> None:
    pass


def _ignore_output(stream: int, data: bytes) -> None:
    pass


def _ignore_counts(counts: Callable[[], KernelUsage | None]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Watch:
    """How an execution is followed while it runs, and called off.

    The two functions are called from the thread that runs the execution and
    must not wait: the guest's deadline passes meanwhile.

    Example:
        >>> said = []
        >>> watch = Watch(output=lambda stream, data: said.append((stream, data)))
        >>> watch.output(1, b"hello")
        >>> said, watch.cancellation.cancelled
        ([(1, b'hello')], False)
    """

    started: Callable[[], None] = _ignore_start
    """To be called once, when the instance has acknowledged the task and is about to
    read its code. Until then the task may run elsewhere."""
    output: Callable[[int, bytes], None] = _ignore_output
    """To be called with 1 or 2 (stdout or stderr) and what was printed, as it comes; all
    of it together is the result's, cut at the same bound."""
    cancellation: Cancellation = field(default_factory=Cancellation)
    """Says when nobody wants the result any more."""
    counted: Callable[[Callable[[], KernelUsage | None]], None] = _ignore_counts
    """To be called, where the kernel counts the execution, with what reads its counts up to now."""

    @property
    def wants_output(self) -> bool:
        """Whether anybody listens to output before the end; else it need not be sent early."""
        return self.output is not _ignore_output


def called_off() -> Cancelled:
    """Return the error of a task whose cancellation was heard."""
    return Cancelled("the task was called off", "", "its output until then is in stdout and stderr")


class Runtime(Protocol):
    """One kind of sandbox and its warm, never-used instances.

    A pool actor owns exactly one, from `start` to `close`. `execute` is called
    from many threads at once.
    """

    name: str
    """The runtime's name in arms: ``python``, ``v8``, ``wasm``, ``ebpf``."""

    def probe(self) -> Probe:
        """Say, within about 100 ms, whether this machine can run it."""
        ...

    def start(self) -> None:
        """Start engines and the first warm instances.

        Raises:
            SpawnFailed: It cannot run here; says what is missing.
        """
        ...

    def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
        """Run one task in an instance that no task has seen, then destroy the instance.

        The guest's own failures and limits come back inside the result, and so does
        a cancellation, as `Cancelled`; a runtime that cannot stop its engine may
        honour it late, but never beyond the task's own deadline.

        Args:
            task: What to run.
            variant: Which variant of this runtime.
            grant: What it may do; already recomputed by the pool.
            watch: Told of the start and of output; asked whether to go on.

        Raises:
            ConfigError: The task cannot be run as given (bad inputs for this language).
            Cancelled: It was called off while it waited for an instance; nothing was started.
            PoolExhausted: No instance came free in time; nothing was started.
            WorkerError: Our side failed; the pool is to be replaced.
        """
        ...

    def load(self) -> Load:
        """Return how busy it is, without waiting."""
        ...

    def close(self) -> None:
        """End every process, cgroup, mount and file it made. May be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class Cell:
    """One piece of code for a session."""

    code: str
    inputs: Packed
    """Only the guest decodes them; their large parts may be sealed memory."""
    label: str = ""
    timeout_s: float | None = None
    """A bound below the grant's own, which None leaves as it is."""


class OpenSession(Protocol):
    """An instance that keeps its state between the cells of one owner.

    `run` and `close` are called by one thread at a time, `kill` by any.
    """

    @property
    def ended(self) -> str:
        """Why it can run no more; empty while it can."""
        ...

    def run(self, cell: Cell, watch: Watch) -> Result:
        """Run one cell; a cancellation interrupts it, and the session lives on.

        A cell that goes over a limit, or whose process dies, ends the session:
        its result says so.

        Raises:
            ConfigError: The cell is malformed; nothing ran.
        """
        ...

    def kill(self) -> None:
        """End it now, also in the middle of a cell; `close` is still to be called."""
        ...

    def close(self) -> None:
        """Destroy the instance; closing twice is fine."""
        ...


@runtime_checkable
class SharedInputsRuntime(Protocol):
    """A runtime whose guests map large inputs themselves: `execute` may be given `SealedInputs`."""

    maps_sealed_inputs: bool


@runtime_checkable
class SessionRuntime(Protocol):
    """A runtime that can keep an instance for an owner."""

    def open_session(self, task: Task, variant: str, grant: Grant) -> OpenSession:
        """Lend an instance to an owner.

        Args:
            task: The language, files and label; its code and inputs are not used.
            variant: Which variant of this runtime.
            grant: What all its cells together may do; time and output count per cell.

        Raises:
            PoolExhausted: No instance came free in time.
            WorkerError: Our side failed.
        """
        ...


@runtime_checkable
class ProcessSession(Protocol):
    """A session that is one process, which its owner may observe."""

    @property
    def pid(self) -> int:
        """The process, in this one's pid namespace; its number may be another's once the session has ended."""
        ...

    def birth(self) -> str:
        """Return what tells it from every process that has or had its number; empty if it has ended."""
        ...


@runtime_checkable
class ObservingRuntime(Protocol):
    """A runtime that can watch what processes ask of the kernel."""

    def observe(self, request: ObservationRequest, watch: Watch, principal: str = "", birth: str = "") -> ObservedTable:
        """Observe a process until the time is over, it has ended, or it is called off.

        Args:
            request: What, of whom, for how long; already admitted by the pool.
            watch: Told when the first event will be seen; asked whether to go on.
            principal: For whom; none has so many that others have none left.
            birth: Which process the number stands for (see `process_birth`); empty for the one that has it now.

        Raises:
            ConfigError: There is no such process.
            SpawnFailed: This machine does not let us; says what is missing.
            PoolExhausted: As many observations run as may.
            WorkerError: Our side failed.
        """
        ...


@runtime_checkable
class GuardingRuntime(Protocol):
    """A runtime that asks the grant at each path operation of a guest."""

    on_denial: Callable[[str, Mapping[str, Any]], None]
    """Called with the principal and each refusal, in the execution's thread; the pool sets it."""


@runtime_checkable
class MortalRuntime(Protocol):
    """A runtime that can lose the process without which it makes no instances."""

    def on_death(self, act: Callable[[], None]) -> None:
        """Have something done when it has lost it, before any execution is answered that ended with it.

        Args:
            act: Called once, from another thread or, if that has happened, at once; must not wait for the runtime.
        """
        ...


@runtime_checkable
class WitnessedRuntime(Protocol):
    """A runtime that has the kernel count each of its executions."""

    witness: Witnessing
    """Set by the pool, before it starts the runtime."""


@runtime_checkable
class NetworkedRuntime(Protocol):
    """A runtime whose tasks may be granted hosts."""

    on_connection: Callable[[str, Mapping[str, Any]], None]
    """Called with the principal and each decision about a connection, from another thread; the pool sets it."""
