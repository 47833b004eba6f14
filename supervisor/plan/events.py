"""Plan events: what the manager tells an observer while a plan runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

from runvisor.policies.errors import ProtocolError, RunvisorError

Kind = Literal["plan_started", "expanded", "started", "retrying", "finished", "failed", "skipped", "plan_finished"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class PlanEvent:
    """One thing that happened to a plan, a step or one run of a ``for_each`` step.

    A plain step gives ``started``, ``retrying`` for each further attempt, then
    ``finished``, ``failed`` or ``skipped``. A ``for_each`` step gives ``expanded``
    with its ``count``, the events of each run with its ``index``, and at the end
    one of its own, without ``index``.

    Example:
        >>> event = PlanEvent("finished", "Sum", at_s=0.5, step="load", runtime="python", latency_s=0.002)
        >>> PlanEvent.from_wire(event.to_wire()) == event
        True
    """

    kind: Kind
    plan: str
    """The plan's title."""
    at_s: float
    """Seconds since the plan started."""
    step: str = ""
    """Empty when the event is the plan's own."""
    index: int | None = None
    attempt: int = 0
    """Which attempt, from 1, where the event is about one."""
    count: int | None = None
    """Runs of a ``for_each`` step, or steps of a plan that are done."""
    runtime: str = ""
    variant: str = ""
    language: str = ""
    explanation: str = ""
    """Why that runtime was chosen, in sentences."""
    latency_s: float | None = None
    """From handing the subtask over to having its outcome."""
    isolation: str = ""
    """The engine that held the code."""
    error: RunvisorError | None = None
    reason: str = ""
    """Why a step was skipped, or in which way a ``for_each`` failed."""

    def to_wire(self) -> dict[str, Any]:
        """Return plain data."""
        data: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        data["error"] = self.error.to_wire() if self.error is not None else None
        return data

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> PlanEvent:
        """Rebuild an event.

        Raises:
            ProtocolError: The data does not describe an event.
        """
        try:
            if data["kind"] not in KINDS:
                raise ValueError(f"kind {data['kind']!r}")
            error = data["error"]
            return cls(**{**data, "error": RunvisorError.from_wire(error) if error is not None else None})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"not a plan event: {type(error).__name__}: {error}") from None
