"""Every error runvisor raises, under one root.

Each class says two things as data: whether the same task may simply be sent
again (``retryable``), and whether the pool actor that ran it is still in
service (``worker_survives``). The sandbox instance never survives anything:
instances serve one task.

Arguments are positional, because an exception with keyword-only arguments
comes back from a Ray call as ``UnserializableException``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class RunvisorError(Exception):
    """The root: says what went wrong, where, and what to do about it.

    Args:
        what: One sentence, the fact.
        where: The place: a file, ``line:column``, a runtime, a step. May be empty.
        remedy: What the caller can do now. May be empty.
        details: Plain data for programs (must survive msgpack).

    Example:
        >>> str(RunvisorError("the glob is empty", "filesystem.read[0]", "remove it"))
        'the glob is empty (at filesystem.read[0]); remove it'
    """

    retryable: ClassVar[bool] = False
    worker_survives: ClassVar[bool] = True
    exit_status: ClassVar[int] = 5

    def __init__(
        self,
        what: str,
        where: str = "",
        remedy: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(what, where, remedy, dict(details or {}))
        self.what = what
        self.where = where
        self.remedy = remedy
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        text = self.what
        if self.where:
            text += f" (at {self.where})"
        if self.remedy:
            text += f"; {self.remedy}"
        return text

    def to_wire(self) -> dict[str, Any]:
        """Return plain data from which `from_wire` rebuilds the same error.

        Ray raises an error as a subclass of its own making, whose name and
        arguments are not ours: the nearest class of ours counts, and its attributes.
        """
        name = next(cls.__name__ for cls in type(self).__mro__ if cls.__name__ in ERRORS)
        return {"type": name, "args": [self.what, self.where, self.remedy, self.details]}

    @staticmethod
    def from_wire(data: Mapping[str, Any]) -> RunvisorError:
        """Rebuild an error from `to_wire` data; an unknown type becomes `ProtocolError`.

        Example:
            >>> RunvisorError.from_wire(UnknownLanguage("no such language").to_wire())
            UnknownLanguage('no such language', '', '', {})
        """
        name, args = (data.get("type"), data.get("args")) if isinstance(data, Mapping) else (None, None)
        cls = ERRORS.get(name) if isinstance(name, str) else None
        if cls is None or not isinstance(args, list) or len(args) != 4 or not isinstance(args[3], dict):
            return ProtocolError(f"the peer sent an error of unknown type {name!r}")
        what, where, remedy = map(str, args[:3])
        return cls(what, where, remedy, args[3])


class ConfigError(RunvisorError):
    """The caller's input is wrong before anything runs; no worker was involved."""

    exit_status = 2


class InvalidPermissions(ConfigError):
    """A permission does not parse: bad glob, host pattern, size or limit."""


class InvalidTask(ConfigError):
    """A task is malformed: empty code, inputs that cannot cross the boundary."""


class UnknownLanguage(ConfigError):
    """The language is not one runvisor runs, or could not be told from the code."""


class UnknownProfile(ConfigError):
    """The task names a profile that the operator has not declared; the remedy lists those there are."""


class TooFewOutcomes(ConfigError):
    """Not enough executions were journalled to learn from; the remedy says how many more it takes."""


class InvalidPlan(ConfigError):
    """A plan does not parse, has a cycle, or names a step that does not exist."""


class PolicyError(RunvisorError):
    """The policy refuses; recorded in the audit log; the worker is unharmed."""

    exit_status = 3


class CapabilityDenied(PolicyError):
    """The task asks for a permission beyond its ceiling."""


class TrustViolation(PolicyError):
    """The task claims more trust than its principal holds, or forged its authority."""


class NoEligibleArm(PolicyError):
    """No runtime can run this task under this grant; ``details['excluded']`` says why."""


class IsolationUnavailable(PolicyError):
    """This machine or user cannot have around the code what its trust calls for."""


class GuestError(RunvisorError):
    """The guest's own fault; the instance is gone, the worker lives on."""

    exit_status = 1


class GuestException(GuestError):
    """Guest code raised; ``details['traceback']`` is its traceback as text."""


class GuestSyntaxError(GuestError):
    """Guest code does not parse or compile; ``where`` is ``line:column``."""


class EngineRefused(GuestSyntaxError):
    """An engine cannot take the program, though another may; nothing of it was run."""


class GuestCrashed(GuestError):
    """The guest's process died by a signal of its own making (for one, a segfault)."""


class UnserializableValue(GuestError):
    """The guest's result is not a value that may cross the boundary."""


class GuestInterrupted(GuestError):
    """The session's owner interrupted the cell; the session lives on with its state."""


class Cancelled(GuestError):
    """The task's owner called it off; what it had printed until then is kept."""


class LimitExceeded(RunvisorError):
    """The guest went over a limit of its grant; the instance was destroyed."""

    exit_status = 4


class TimeLimitExceeded(LimitExceeded):
    """Wall-clock or CPU time ran out; every process of the execution was killed."""


class MemoryLimitExceeded(LimitExceeded):
    """Memory ran out, as seen by the allocator, the engine or the cgroup."""


class OutputLimitExceeded(LimitExceeded):
    """stdout, stderr or the value is larger than ``output_bytes``."""


class DiskLimitExceeded(LimitExceeded):
    """The files that a task is granted are more than ``disk_bytes`` holds; it did not run."""


class InstructionLimitExceeded(LimitExceeded):
    """Fuel or the verifier's instruction budget ran out."""


class WorkerError(RunvisorError):
    """Our side failed; the pool actor is replaced."""

    retryable = True
    worker_survives = False


class WorkerCrashed(WorkerError):
    """The pool actor died; ``details['started']`` says whether the task had begun."""


class SpawnFailed(WorkerError):
    """A pool or a sandbox could not be started on this machine."""

    retryable = False


class ProtocolError(WorkerError):
    """A frame was malformed, too large or out of order; its connection is closed."""

    retryable = False


class CapacityError(RunvisorError):
    """No room just now; nothing was harmed; ``details['retry_after_s']`` is a hint."""

    retryable = True


class PoolExhausted(CapacityError):
    """Every instance is lent and no new one came free in time."""


class QueueFull(CapacityError):
    """More callers wait than the pool admits."""


class TooManySessions(CapacityError):
    """The principal, or the pool, has as many sessions as it may; close one, or wait for one to expire."""


class SessionBusy(CapacityError):
    """The session runs another cell just now; one runs at a time."""


class SessionLost(RunvisorError):
    """The session is gone, with its state: closed, expired, killed at a limit, or never the caller's."""

    exit_status = 1


class SupervisionError(RunvisorError):
    """Supervision itself gave up."""

    worker_survives = False


class RestartIntensityExceeded(SupervisionError):
    """A child died more often than its restart intensity allows."""


def _tree(root: type[RunvisorError]) -> dict[str, type[RunvisorError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


ERRORS: Mapping[str, type[RunvisorError]] = _tree(RunvisorError)
"""Every error class by name: what `RunvisorError.from_wire` accepts."""
