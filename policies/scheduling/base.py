"""What every scheduling policy is: it selects an arm and learns from outcomes.

A policy is pure: the caller brings the time and the randomness. It sees only
arms that may run the task; no policy can bring back one that was struck out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Final, Protocol, runtime_checkable

from runvisor.policies.errors import (
    GuestException,
    ProtocolError,
    RunvisorError,
    TimeLimitExceeded,
    UnserializableValue,
    WorkerError,
)
from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.decision import Candidate
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.values import is_number

MAX_NAME_CHARS: Final = 100
_MAX_SECONDS: Final = 1e9
_MAX_AT: Final = 1e11


class Load(Protocol):
    """How busy a pool is. `runvisor.actors.runtime.Load` is one."""

    @property
    def idle(self) -> int:
        """Warm instances that wait for a task."""
        ...

    @property
    def busy(self) -> int:
        """Instances that run one."""
        ...

    @property
    def waiting(self) -> int:
        """Callers that wait for an instance."""
        ...

    @property
    def backlog_s(self) -> float:
        """Seconds of work that are expected to be queued or running there; 0 is unknown."""
        ...

    @property
    def at(self) -> float:
        """When it was so, in Unix seconds; 0 is just now."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a policy may know of one task beside its eligible arms."""

    family: str
    """Tasks that are alike, such as ``python:s``; see `runvisor.policies.scheduling.families.family_of`."""
    timeout_s: float
    """The grant's wall-clock limit: what a failure costs."""
    loads: Mapping[str, Load] = field(default_factory=dict)
    """Load by runtime, or by ``runtime/variant``; without one an arm is taken for idle."""
    critical: bool = False
    """Never try an arm on it merely to learn."""
    features: tuple[float, ...] = ()
    """Numbers about the task; see `runvisor.policies.scheduling.features.features_of`."""
    objective: Objective | None = None
    """What to make small; None leaves it to the policy."""
    cold: frozenset[str] | None = None
    """Names of the arms that would start it cold; None is unknown."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An arm, and what was believed of each."""

    arm: str
    explored: bool
    """Whether it was taken to learn about it, although another looked best."""
    candidates: Sequence[Candidate]
    """One per eligible arm, in their order."""
    objective: str = ""
    """What was made small, in words that follow "the lowest"; empty is the policy's own."""
    expected_s: float = 0.0
    """Expected service time of the chosen arm; 0 is unknown."""


class Ending(IntEnum):
    """How an execution ended, as far as latency is concerned."""

    RAN = 0
    """It ran to its end, well or with an exception of its own: a latency sample."""
    FAILED = 1
    """Our side failed: no latency sample, but a failure of the arm."""
    TIMED_OUT = 2
    """Cut off: its latency is known only to be more than the timeout (right-censored)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one execution teaches; a handle makes it, the supervisor learns from it."""

    arm: str
    family: str
    ending: Ending
    service_s: float
    """From handing the guest its code to its end, waiting for an instance left out."""
    wait_s: float
    """Waiting for an instance, before that."""
    timeout_s: float
    """The limit that it ran under."""
    at: float
    """When it ended, in Unix seconds."""
    cold: bool = False
    """Whether it paid for a compiler or a new instance."""
    features: tuple[float, ...] = ()
    """As in the context that it was chosen in."""
    cold_s: float = 0.0
    """How much of ``service_s`` went into starting cold, where that was measured."""

    def __post_init__(self) -> None:
        for name in ("arm", "family"):
            text = getattr(self, name)
            if not isinstance(text, str) or not 0 < len(text) <= MAX_NAME_CHARS:
                raise ProtocolError(f"an outcome's {name} is not a name", name)
        for name in ("service_s", "wait_s", "timeout_s", "cold_s"):
            seconds = getattr(self, name)
            if not is_number(seconds) or not 0 <= seconds <= _MAX_SECONDS:
                raise ProtocolError(f"an outcome's {name} is no duration", name)
        if not is_number(self.at) or not 0 <= self.at <= _MAX_AT:
            raise ProtocolError("an outcome's time is no Unix time", "at")
        if len(self.features) > 64 or not all(map(is_number, self.features)):
            raise ProtocolError("an outcome's features are no numbers", "features")

    @classmethod
    def of(
        cls,
        arm: str,
        family: str,
        error: RunvisorError | None,
        *,
        service_s: float,
        wait_s: float,
        timeout_s: float,
        at: float,
        cold: bool = False,
        features: tuple[float, ...] = (),
        cold_s: float = 0.0,
    ) -> Outcome | None:
        """Return what an execution teaches, or None if it teaches nothing about latency.

        A value, an exception of the guest's own and a value that may not leave
        are samples. A time limit is a censored one. A `WorkerError` is a failure
        of the arm. All else teaches nothing: what was refused never ran, and what
        crashed or hit another limit stopped at a moment that says little of the
        arm; counted as a sample, a fast crash would look like a fast arm.

        Example:
            >>> from runvisor.policies.errors import CapabilityDenied, WorkerCrashed
            >>> spent = {"service_s": 0.1, "wait_s": 0.0, "timeout_s": 5.0, "at": 0.0}
            >>> Outcome.of("v8/isolate", "javascript:s", WorkerCrashed("gone"), **spent).ending.name
            'FAILED'
            >>> Outcome.of("v8/isolate", "javascript:s", CapabilityDenied("no"), **spent) is None
            True
        """
        if error is None or isinstance(error, GuestException | UnserializableValue):
            ending = Ending.RAN
        elif isinstance(error, TimeLimitExceeded):
            ending = Ending.TIMED_OUT
        elif isinstance(error, WorkerError):
            ending = Ending.FAILED
        else:
            return None
        return cls(arm, family, ending, max(0.0, service_s), max(0.0, wait_s), timeout_s, at, cold, features, cold_s)

    def moved_to(self, at: float) -> Outcome:
        """Return the same outcome with another time."""
        return replace(self, at=at)

    def to_wire(self) -> list[Any]:
        """Return plain data; a list, because outcomes travel in hundreds."""
        return [
            self.arm,
            self.family,
            int(self.ending),
            self.service_s,
            self.wait_s,
            self.timeout_s,
            self.at,
            self.cold,
            list(self.features),
            self.cold_s,
        ]

    @classmethod
    def from_wire(cls, data: Sequence[Any]) -> Outcome:
        """Rebuild an outcome.

        Raises:
            ProtocolError: The data does not describe an outcome.
        """
        try:
            arm, family, ending, service_s, wait_s, timeout_s, at, cold, features, cold_s = data
            return cls(
                arm, family, Ending(ending), service_s, wait_s, timeout_s, at, bool(cold), tuple(features), cold_s
            )
        except (TypeError, ValueError) as error:
            raise ProtocolError(f"not an outcome: {error}") from None


class LatencyPrior(Protocol):
    """What is expected of tasks before any of their family has run; fitted on past executions."""

    def log_mean_s(self, arm: str, family: str, features: Sequence[float]) -> float | None:
        """Return the expected logarithm of an arm's service time in seconds, or None if it cannot tell."""
        ...


class Selector(Protocol):
    """The reading half of a policy: what a handle holds between two snapshots."""

    objective: str
    """What it minimises, in words that follow "the lowest"."""

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Choose one of the arms; changes nothing.

        Args:
            context: The task.
            arms: The eligible ones, at least one, in order of preference at equal score.
            now: Unix time in seconds.
            draws: Standard normal draws, at least one per arm; empty is no exploration.

        Raises:
            ValueError: No arms, or fewer draws than arms.
        """
        ...


@runtime_checkable
class BatchSelector(Protocol):
    """A policy that chooses for many tasks at once, each with those before it in view."""

    def select_many(
        self, tasks: Sequence[tuple[Context, Sequence[Arm]]], now: float, draws: Sequence[Sequence[float]]
    ) -> list[Choice]:
        """Choose an arm for each.

        Args:
            tasks: Context and eligible arms of each, in the order in which they are sent.
            now: Unix time in seconds.
            draws: For each task what `Selector.select` takes.
        """
        ...


class Scheduler(Selector, Protocol):
    """A whole policy: the supervisor's copy, which learns."""

    name: str
    """Its name in snapshots."""

    def update(self, outcome: Outcome) -> None:
        """Learn from one outcome."""
        ...

    def to_wire(self) -> dict[str, Any]:
        """Return its state as plain data, from which its class rebuilds an equal one."""
        ...


def check_arms(arms: Sequence[Arm], draws: Sequence[float]) -> None:
    """Refuse what `Selector.select` says it refuses."""
    if not arms:
        raise ValueError("there is no arm to choose from")
    if draws and len(draws) < len(arms):
        raise ValueError(f"{len(draws)} draws for {len(arms)} arms")


def load_of(arm: Arm, loads: Mapping[str, Load]) -> Load | None:
    """Return the load of an arm's pool, if it is known."""
    return loads.get(arm.runtime) or loads.get(arm.name)
