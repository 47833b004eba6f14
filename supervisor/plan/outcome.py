"""How a plan ended: per step, per run, and as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runvisor.policies.errors import ProtocolError, RunvisorError
from runvisor.policies.result import Result
from runvisor.policies.scheduling.decision import Decision
from runvisor.policies.values import Value, to_json
from runvisor.supervisor.plan.signals import State


@dataclass(frozen=True, slots=True)
class SubtaskOutcome:
    """How one run of a step's code ended."""

    index: int | None
    """Which element of the ``for_each``; None for a plain step."""
    state: State
    attempts: int = 0
    result: Result | None = None
    """Of the last attempt; None when it never came to a result."""
    error: RunvisorError | None = None
    """Of the last attempt, whether the guest failed or we did."""
    started_s: float | None = None
    """Of the last attempt, in seconds since the plan started."""
    finished_s: float | None = None

    @property
    def latency_s(self) -> float | None:
        """From handing it over to having its outcome; None if it never ran to an outcome."""
        if self.started_s is None or self.finished_s is None:
            return None
        return self.finished_s - self.started_s

    def to_wire(self) -> dict[str, Any]:
        """Return plain data, the scheduler's decision included."""
        decision = self.result.decision if self.result is not None else None
        return {
            "index": self.index,
            "state": str(self.state),
            "attempts": self.attempts,
            "result": self.result.to_wire() if self.result is not None else None,
            "decision": decision.to_wire() if decision is not None else None,
            "error": self.error.to_wire() if self.error is not None else None,
            "started_s": self.started_s,
            "finished_s": self.finished_s,
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> SubtaskOutcome:
        """Rebuild an outcome; errors surface as in `PlanResult.from_wire`."""
        result = Result.from_wire(data["result"]) if data["result"] is not None else None
        if result is not None and data["decision"] is not None:
            result = result.with_decision(Decision.from_wire(data["decision"]))
        return cls(
            index=data["index"],
            state=State(data["state"]),
            attempts=data["attempts"],
            result=result,
            error=RunvisorError.from_wire(data["error"]) if data["error"] is not None else None,
            started_s=data["started_s"],
            finished_s=data["finished_s"],
        )

    def to_document(self) -> dict[str, Any]:
        """Return JSON types."""
        return {
            "index": self.index,
            "state": str(self.state),
            "attempts": self.attempts,
            "started_s": self.started_s,
            "finished_s": self.finished_s,
            "latency_s": self.latency_s,
            "error": error_document(self.error),
            "result": self.result.to_document() if self.result is not None else None,
        }


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How one step ended."""

    step: str
    """Its id."""
    state: State
    title: str = ""
    fans_out: bool = False
    """Whether it ran once per element of a list."""
    reason: str = ""
    """Why it was skipped, or how many of its runs failed."""
    error: RunvisorError | None = None
    """The error of the step, or of the first of its runs that failed."""
    subtasks: tuple[SubtaskOutcome, ...] = ()
    """One for a plain step that ran, one per element for a ``for_each``."""

    @property
    def ok(self) -> bool:
        """Whether it is done."""
        return self.state is State.DONE

    @property
    def value(self) -> Value:
        """The step's value: for a ``for_each`` the list of values in order; None if it is not done."""
        if not self.ok:
            return None
        values = [one.result.value if one.result is not None else None for one in self.subtasks]
        return values if self.fans_out else values[0]

    @property
    def latency_s(self) -> float | None:
        """From the first run's start to the last one's end."""
        starts = [one.started_s for one in self.subtasks if one.started_s is not None]
        ends = [one.finished_s for one in self.subtasks if one.finished_s is not None]
        return max(ends) - min(starts) if starts and ends else None

    def to_wire(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "step": self.step,
            "state": str(self.state),
            "title": self.title,
            "fans_out": self.fans_out,
            "reason": self.reason,
            "error": self.error.to_wire() if self.error is not None else None,
            "subtasks": [one.to_wire() for one in self.subtasks],
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> StepOutcome:
        """Rebuild an outcome; errors surface as in `PlanResult.from_wire`."""
        outcome = cls(
            step=str(data["step"]),
            state=State(data["state"]),
            title=str(data["title"]),
            fans_out=bool(data["fans_out"]),
            reason=str(data["reason"]),
            error=RunvisorError.from_wire(data["error"]) if data["error"] is not None else None,
            subtasks=tuple(SubtaskOutcome.from_wire(one) for one in data["subtasks"]),
        )
        if outcome.ok and not outcome.fans_out and len(outcome.subtasks) != 1:
            raise ValueError(f"step {outcome.step} is done without exactly one run")
        return outcome

    def to_document(self) -> dict[str, Any]:
        """Return JSON types."""
        return {
            "step": self.step,
            "title": self.title,
            "state": str(self.state),
            "reason": self.reason,
            "error": error_document(self.error),
            "value": to_json(self.value),
            "latency_s": self.latency_s,
            "runs": [one.to_document() for one in self.subtasks],
        }


@dataclass(frozen=True, slots=True)
class PlanResult:
    """The outcome of a plan, steps in the plan's order.

    A step that fails is an outcome, not an exception: look at ``ok``, or call `unwrap`.

    Example:
        >>> from runvisor.policies.result import Isolation
        >>> run = SubtaskOutcome(None, State.DONE, 1, Result(Isolation("wasmtime"), value=3))
        >>> result = PlanResult("Sum", (StepOutcome("total", State.DONE, subtasks=(run,)),))
        >>> result.ok, result.values, result["total"].value
        (True, {'total': 3}, 3)
    """

    title: str
    steps: tuple[StepOutcome, ...]
    wall_s: float = 0.0
    """From the plan's start to its end."""
    cancelled: bool = False
    """Whether its owner ended it early."""

    @property
    def ok(self) -> bool:
        """Whether every step is done."""
        return all(step.ok for step in self.steps)

    @property
    def exit_status(self) -> int:
        """What a command that ran the plan exits with: 0, or that of the first step's error."""
        if self.ok:
            return 0
        errors = (step.error for step in self.steps if step.error is not None)
        return next(errors, RunvisorError("")).exit_status

    @property
    def values(self) -> dict[str, Value]:
        """The values of the steps that are done, by id."""
        return {step.step: step.value for step in self.steps if step.ok}

    def __getitem__(self, step_id: str) -> StepOutcome:
        for step in self.steps:
            if step.step == step_id:
                return step
        raise KeyError(step_id)

    def unwrap(self) -> dict[str, Value]:
        """Return the values of all steps.

        Raises:
            RunvisorError: The error of the first step that failed.
        """
        for step in self.steps:
            if not step.ok and step.error is not None:
                raise step.error
        for step in self.steps:
            if not step.ok:
                raise RunvisorError(f"the step did not run: {step.reason}", f"step {step.step}")
        return self.values

    def to_wire(self) -> dict[str, Any]:
        """Return plain data; values are packed apart."""
        return {
            "title": self.title,
            "steps": [step.to_wire() for step in self.steps],
            "wall_s": self.wall_s,
            "cancelled": self.cancelled,
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> PlanResult:
        """Rebuild a result.

        Raises:
            ProtocolError: The data does not describe a plan's result.
        """
        try:
            return cls(
                title=str(data["title"]),
                steps=tuple(StepOutcome.from_wire(step) for step in data["steps"]),
                wall_s=float(data["wall_s"]),
                cancelled=bool(data["cancelled"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"not a plan's result: {type(error).__name__}: {error}") from None

    def to_document(self) -> dict[str, Any]:
        """Return the JSON document that ``--json`` prints."""
        return {
            "title": self.title,
            "ok": self.ok,
            "cancelled": self.cancelled,
            "wall_s": self.wall_s,
            "steps": [step.to_document() for step in self.steps],
        }


def error_document(error: RunvisorError | None) -> dict[str, Any] | None:
    """Return an error as JSON types."""
    if error is None:
        return None
    return {"type": type(error).__name__, "message": str(error), "details": to_json(error.details)}
