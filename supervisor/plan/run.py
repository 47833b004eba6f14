"""One run of one plan: threads, clock and bookkeeping around the state machine.

It decides nothing. `state.advance` says what to do; this builds the inputs,
keeps the threads and reports what became of each subtask.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from runvisor.policies.errors import CapacityError, InvalidPlan, ProtocolError, RunvisorError
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.values import Value
from runvisor.supervisor.plan.decompose import Graph
from runvisor.supervisor.plan.events import Kind, PlanEvent
from runvisor.supervisor.plan.executor import Executor, attempt
from runvisor.supervisor.plan.inputs import elements_of, inputs_of
from runvisor.supervisor.plan.model import Step
from runvisor.supervisor.plan.outcome import PlanResult, StepOutcome, SubtaskOutcome
from runvisor.supervisor.plan.signals import (
    Begun,
    Cancelled,
    Command,
    Count,
    Counted,
    Event,
    Failed,
    Settle,
    Start,
    State,
    Subtask,
    Succeeded,
    Uncountable,
)
from runvisor.supervisor.plan.state import CANCELLED, advance, initial_state

_POLL_S: Final = 0.02
_LOG: Final = logging.getLogger(__name__)

Observer = Callable[[PlanEvent], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the manager gives to each of its runs; see `manager.Manager`."""

    executor: Executor
    max_parallel: int
    permissions: Permissions | None
    observer: Observer | None
    overrun_s: float
    clock: Callable[[], float]


@dataclass(slots=True)
class _Record:
    """What is known of one subtask so far."""

    attempt: int = 0
    result: Result | None = None
    error: RunvisorError | None = None
    started_s: float | None = None
    finished_s: float | None = None
    deadline_s: float = 0.0

    @property
    def latency_s(self) -> float | None:
        if self.started_s is None or self.finished_s is None:
            return None
        return self.finished_s - self.started_s


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a thread brings back of one attempt."""

    subtask: Subtask
    result: Result | None
    error: RunvisorError | None
    started_s: float
    finished_s: float


@dataclass(slots=True)
class _Kept:
    """What is known of one step so far."""

    items: list[Value] = field(default_factory=list)
    """The elements of a ``for_each``."""
    error: RunvisorError | None = None
    records: dict[int | None, _Record] = field(default_factory=dict)


class Run:
    """One run of one plan, all in one thread but for the executor's calls."""

    def __init__(self, graph: Graph, settings: Settings, cancel: threading.Event) -> None:
        self.graph = graph
        self.settings = settings
        self.cancel = cancel
        self.over = threading.Event()
        self.answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self.events: deque[Event] = deque([Begun()])
        self.flights: dict[Subtask, _Record] = {}
        self.kept = {step_id: _Kept() for step_id in graph.steps}
        self.values: dict[str, Value] = {}
        self.state = initial_state(graph, max_parallel=settings.max_parallel)
        self.began = settings.clock()

    def to_end(self) -> PlanResult:
        """Run the plan until every step came to its end; called once."""
        self._tell("plan_started", count=len(self.graph.steps))
        try:
            while not self.state.is_finished:
                event = self._next_event()
                self.state, commands = advance(self.state, event)
                if isinstance(event, Succeeded | Failed):
                    self._tell_of_run(event.subtask)
                for command in commands:
                    self._perform(command)
        finally:
            self.over.set()
        result = self._result()
        self._tell("plan_finished", count=sum(step.ok for step in result.steps))
        return result

    def _now_s(self) -> float:
        return self.settings.clock() - self.began

    # What happens

    def _next_event(self) -> Event:
        while True:
            if self.cancel.is_set() and not self.state.is_cancelled:
                return self._cancelled()
            if self.events:
                return self.events.popleft()
            if overdue := self._overdue():
                return overdue
            try:
                answer = self.answers.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if event := self._accepted(answer):
                return event

    def _cancelled(self) -> Event:
        self.over.set()
        self.events.clear()
        for subtask, record in self.flights.items():
            record.finished_s = self._now_s()
            record.error = RunvisorError(f"{CANCELLED} while this ran", f"step {subtask.label}")
        self.flights.clear()
        return Cancelled()

    def _overdue(self) -> Event | None:
        now_s = self._now_s()
        for subtask, record in self.flights.items():
            if now_s > record.deadline_s:
                del self.flights[subtask]
                record.finished_s = now_s
                record.error = ProtocolError(
                    f"the executor was silent for {self.settings.overrun_s:g} s past the step's time limit",
                    f"step {subtask.label}",
                    "its sandbox may still be running",
                )
                return Failed(subtask, record.error)
        return None

    def _accepted(self, answer: _Answer) -> Event | None:
        """Keep what an attempt brought, unless it was given up before."""
        record = self.flights.get(answer.subtask)
        if record is None:
            return None
        del self.flights[answer.subtask]
        record.started_s, record.finished_s = answer.started_s, answer.finished_s
        record.result = answer.result
        record.error = answer.error
        if record.error is not None:
            return Failed(answer.subtask, record.error)
        return Succeeded(answer.subtask)

    # What is to be done

    def _perform(self, command: Command) -> None:
        match command:
            case Count(step_id):
                self._count(self.graph.steps[step_id])
            case Start():
                self._start(command)
            case Settle(step_id, state, reason):
                self._settle(step_id, state, reason)

    def _count(self, step: Step) -> None:
        kept = self.kept[step.id]
        try:
            kept.items = elements_of(self.graph, step.id, self.values)
        except RunvisorError as error:
            kept.error = InvalidPlan(error.what, f"{step.where}, for_each={step.for_each}", error.remedy)
            self.events.append(Uncountable(step.id))
            return
        self._tell("expanded", step.id, count=len(kept.items))
        self.events.append(Counted(step.id, len(kept.items)))

    def _start(self, command: Start) -> None:
        subtask, number = command.subtask, command.attempt
        step = self.graph.steps[subtask.step]
        record = self.kept[step.id].records.setdefault(subtask.index, _Record())
        self._tell(
            "started" if number == 1 else "retrying",
            step.id,
            index=subtask.index,
            attempt=number,
            error=record.error,
        )
        record.attempt, record.result, record.error = number, None, None
        record.started_s, record.finished_s = self._now_s() + command.delay_s, None
        record.deadline_s = record.started_s + step.timeout_s + self.settings.overrun_s
        self.flights[subtask] = record
        try:
            inputs = inputs_of(self.graph, step.id, self.values, self.kept[step.id].items, subtask.index)
            threading.Thread(
                target=self._attend,
                args=(step, command, inputs, self._grant_of(step)),
                name=f"runvisor-plan-{subtask.label}",
                daemon=True,
            ).start()
        except RunvisorError as error:
            self._answer_now(subtask, InvalidPlan(error.what, f"{step.where}, inputs", error.remedy))
        except RuntimeError as error:  # no thread to be had
            self._answer_now(subtask, CapacityError(f"no thread for the subtask: {error}", step.where))

    def _answer_now(self, subtask: Subtask, error: RunvisorError) -> None:
        self.answers.put(_Answer(subtask, None, error, self._now_s(), self._now_s()))

    def _attend(self, step: Step, start: Start, inputs: Value, grant: Permissions) -> None:
        """Run one attempt; in a thread of its own. Whatever the executor does, an answer comes back."""
        if self.over.wait(start.delay_s) if start.delay_s else self.over.is_set():
            return
        started_s = self._now_s()
        result, error = attempt(
            self.settings.executor, step, inputs=inputs, permissions=grant, label=start.subtask.label
        )
        self.answers.put(_Answer(start.subtask, result, error, started_s, self._now_s()))

    def _grant_of(self, step: Step) -> Permissions:
        """Return what a subtask may have; the checks at load make the narrowing a second lock."""
        permissions = step.permissions
        for ceiling in (self.graph.plan.permissions, self.settings.permissions):
            if ceiling is not None:
                permissions = permissions.narrowed_to(ceiling)
        return permissions

    def _settle(self, step_id: str, state: State, reason: str) -> None:
        outcome = self._outcome(step_id)
        if state is State.DONE:
            self.values[step_id] = outcome.value
        kinds: Mapping[State, Kind] = {State.DONE: "finished", State.FAILED: "failed", State.SKIPPED: "skipped"}
        facts: dict[str, Any] = {"reason": reason, "error": outcome.error, "latency_s": outcome.latency_s}
        record = self.kept[step_id].records.get(None)
        if record is not None:
            facts |= _facts(record)
        elif outcome.fans_out:
            facts["count"] = len(outcome.subtasks)
        self._tell(kinds[state], step_id, **facts)

    # What is told

    def _tell_of_run(self, subtask: Subtask) -> None:
        """Tell how one run of a ``for_each`` ended; a plain step tells when it settles."""
        if subtask.index is None:
            return
        state = self.state.steps[subtask.step].subtasks[subtask.index]
        if state.is_terminal:
            record = self.kept[subtask.step].records[subtask.index]
            kind: Kind = "finished" if state is State.DONE else "failed"
            self._tell(kind, subtask.step, index=subtask.index, **_facts(record))

    def _tell(self, kind: Kind, step: str = "", **facts: Any) -> None:
        observer = self.settings.observer
        if observer is None:
            return
        try:
            observer(PlanEvent(kind, self.graph.plan.title, self._now_s(), step, **facts))
        except Exception:
            _LOG.exception("the observer of plan %r failed on %r", self.graph.plan.title, kind)

    def _outcome(self, step_id: str) -> StepOutcome:
        step, progress, kept = self.graph.steps[step_id], self.state.steps[step_id], self.kept[step_id]
        subtasks: list[SubtaskOutcome] = []
        for number, (state, attempts) in enumerate(zip(progress.subtasks, progress.attempts, strict=True)):
            index = number if step.for_each is not None else None
            record = kept.records.get(index) or _Record()
            subtasks.append(
                SubtaskOutcome(index, state, attempts, record.result, record.error, record.started_s, record.finished_s)
            )
        failed = (one.error for one in subtasks if one.state is State.FAILED)
        return StepOutcome(
            step=step_id,
            state=progress.state,
            title=step.title,
            fans_out=step.for_each is not None,
            reason=progress.reason,
            error=kept.error or next(failed, None),
            subtasks=tuple(subtasks),
        )

    def _result(self) -> PlanResult:
        steps = tuple(self._outcome(step_id) for step_id in self.graph.steps)
        return PlanResult(self.graph.plan.title, steps, self._now_s(), self.state.is_cancelled)


def _facts(record: _Record) -> dict[str, Any]:
    facts: dict[str, Any] = {"attempt": record.attempt, "latency_s": record.latency_s, "error": record.error}
    result = record.result
    if result is not None:
        facts |= {
            "runtime": result.runtime,
            "variant": result.variant,
            "language": result.language,
            "isolation": result.isolation.engine,
            "explanation": result.decision.explain() if result.decision is not None else "",
        }
    return facts
