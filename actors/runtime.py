"""The protocol that every runtime implements, and what it reports of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant


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


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a pool is, sent back with every reply."""

    idle: int = 0
    """Warm instances that wait for a task."""
    busy: int = 0
    """Instances that run one."""
    waiting: int = 0
    """Callers that wait for an instance."""


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

    def execute(self, task: Task, variant: str, grant: Grant, on_started: Callable[[], None]) -> Result:
        """Run one task in an instance that no task has seen, then destroy the instance.

        The guest's own failures and limits come back inside the result.

        Args:
            task: What to run.
            variant: Which variant of this runtime.
            grant: What it may do; already recomputed by the pool.
            on_started: Called once, when the instance has acknowledged the task and
                is about to read its code. Until then the task may run elsewhere.

        Raises:
            ConfigError: The task cannot be run as given (bad inputs for this language).
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
