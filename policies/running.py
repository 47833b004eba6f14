"""Executions, sessions and observations: what pools say of those that there are, and how fast they use the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from runvisor.policies.errors import ProtocolError
from runvisor.policies.values import is_number
from runvisor.policies.witness import KernelUsage

State = Literal["waiting", "running", "idle"]
_STATES: Final[tuple[State, ...]] = ("waiting", "running", "idle")


@dataclass(frozen=True, slots=True)
class Running:
    """One execution, session or observation, as it stood at one moment."""

    id: str
    """Its runtime, and a number that its pool gives no other."""
    principal: str
    runtime: str
    variant: str
    label: str
    trust: str
    state: State
    """``waiting`` until an instance has acknowledged the task; ``idle`` is a session without a cell."""
    age_s: float
    """Since it was admitted; of a session that is idle, since it was opened."""
    kernel: KernelUsage | None = None
    """What was counted up to now; None where nothing is."""

    def to_wire(self) -> dict[str, Any]:
        """Return plain data."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        plain["kernel"] = None if self.kernel is None else self.kernel.to_wire()
        return plain

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Running:
        """Rebuild it.

        Raises:
            ProtocolError: It is no such data.

        Example:
            >>> one = Running("python-3", "ada", "python", "native", "", "untrusted", "running", 0.5)
            >>> Running.from_wire(one.to_wire()) == one
            True
        """
        try:
            if data["state"] not in _STATES or not is_number(data["age_s"]):
                raise ValueError("no state or no age")
            texts = {name: str(data[name]) for name in ("id", "principal", "runtime", "variant", "label", "trust")}
            kernel = None if data["kernel"] is None else KernelUsage.from_wire(data["kernel"])
            return cls(**texts, state=data["state"], age_s=float(data["age_s"]), kernel=kernel)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ProtocolError(f"not a running execution: {type(error).__name__}: {error}") from None


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast an execution used what was counted, between two moments."""

    cpu: float = 0.0
    """Cores."""
    syscalls: float = 0.0
    """Each second, as are the two below."""
    read_bytes: float = 0.0
    written_bytes: float = 0.0


def rates(now: Running, before: Running | None) -> Rates | None:
    """Return the rates of an execution since it was seen before, or over its life; None where nothing is counted.

    Args:
        now: It.
        before: The same, seen earlier; None if it was not.

    Example:
        >>> def seen(age_s, calls):
        ...     return Running("p-1", "ada", "python", "native", "", "untrusted", "running", age_s, KernelUsage(calls))
        >>> rates(seen(2.0, 500), seen(1.5, 400)).syscalls, rates(seen(2.0, 500), None).syscalls
        (200.0, 250.0)
    """
    if now.kernel is None:
        return None
    since, then = 0.0, KernelUsage()
    # A session's next cell, or a batch's next execution, counts from nothing under the same id.
    if before is not None and before.kernel is not None and before.kernel.syscalls <= now.kernel.syscalls:
        since, then = before.age_s, before.kernel
    passed_s = now.age_s - since
    if passed_s <= 0:
        return Rates()
    return Rates(
        cpu=max(0.0, now.kernel.cpu_s - then.cpu_s) / passed_s,
        syscalls=(now.kernel.syscalls - then.syscalls) / passed_s,
        read_bytes=max(0, now.kernel.read_bytes - then.read_bytes) / passed_s,
        written_bytes=max(0, now.kernel.written_bytes - then.written_bytes) / passed_s,
    )
