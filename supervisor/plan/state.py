"""The state of a running plan: what has happened, and what is to be done next. Pure.

Two rules. All that decides lives here: the manager only does what the commands
say and reports what became of it. And nothing here knows values, executors,
threads or time, so a whole run can be replayed from its events.

The shape follows h11 (https://h11.readthedocs.io) and the worker state machine
of dask.distributed: `advance` takes a state and an event and returns the next
state and commands.

====================  =====================================================================
state                 becomes
====================  =====================================================================
pending               ready when all that it needs is done; skipped when one of those fails
ready                 running when there is room; skipped on cancellation
running               done, failed, or ready again for a retry
done, failed, skipped nothing more
====================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from runvisor.policies.errors import RunvisorError, SupervisionError
from runvisor.supervisor.plan.decompose import Graph
from runvisor.supervisor.plan.retries import retry_delay_s
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

_Item = TypeVar("_Item")

CANCELLED: Final = "the plan was cancelled"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one step stands."""

    state: State = State.PENDING
    reason: str = ""
    """Why it was skipped or failed."""
    blocked_by: int = 0
    """Steps it waits for that are not done yet."""
    subtasks: tuple[State, ...] = ()
    """One for a plain step, one per element for a fan-out; empty until they are known."""
    attempts: tuple[int, ...] = ()
    """How often each subtask was started."""
    fresh: int = 0
    """The first subtask that was never started."""
    again: tuple[tuple[int, float], ...] = ()
    """Subtasks to start once more, with the delay in seconds."""
    running: int = 0
    unfinished: int = 0

    @property
    def is_startable(self) -> bool:
        """Whether a subtask of it waits for room."""
        return not self.state.is_terminal and (bool(self.again) or self.fresh < len(self.subtasks))


@dataclass(frozen=True, slots=True)
class PlanState:
    """Everything that `advance` decides by."""

    graph: Graph
    max_parallel: int
    steps: Mapping[str, Progress] = field(default_factory=dict)
    startable: tuple[str, ...] = ()
    """Steps with subtasks that wait for room; the first in line is the next to get some."""
    running: int = 0
    is_cancelled: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether every step came to its end."""
        return all(progress.state.is_terminal for progress in self.steps.values())


def initial_state(graph: Graph, *, max_parallel: int = 8) -> PlanState:
    """Return the state before anything has happened; feed it `Begun` first.

    Args:
        graph: The plan's steps and dependencies.
        max_parallel: Subtasks that may run at once.
    """
    if max_parallel < 1:
        raise ValueError("max_parallel must be at least 1")
    steps = {step_id: Progress(blocked_by=len(graph.waits_for(step_id))) for step_id in graph.steps}
    return PlanState(graph, max_parallel, steps)


def advance(state: PlanState, event: Event) -> tuple[PlanState, tuple[Command, ...]]:
    """Return what an event makes of a state, and the commands that follow from it.

    Raises:
        SupervisionError: The event cannot happen in this state; the caller has a defect.

    Example:
        >>> from runvisor.supervisor.plan.decompose import decompose
        >>> from runvisor.supervisor.plan.model import Plan, Step
        >>> state = initial_state(decompose(Plan("one", (Step("a", "1", "python"),))))
        >>> state, commands = advance(state, Begun())
        >>> commands
        (Start(subtask=Subtask(step='a', index=None), attempt=1, delay_s=0.0),)
        >>> state, commands = advance(state, Succeeded(Subtask("a")))
        >>> commands, state.is_finished
        ((Settle(step='a', state=<State.DONE: 'done'>, reason=''),), True)
    """
    turn = _Turn(state)
    match event:
        case Begun():
            turn.begin()
        case Counted(step, count):
            turn.fan_out(step, count)
        case Uncountable(step):
            turn.give_up_counting(step)
        case Succeeded(subtask):
            turn.succeed(subtask)
        case Failed(subtask, error):
            turn.fail(subtask, error)
        case Cancelled():
            turn.cancel()
    turn.fill_room()
    return turn.after(), tuple(turn.commands)


class _Turn:
    """One call of `advance`: a copy of the state that may change until it is handed out."""

    def __init__(self, before: PlanState) -> None:
        self.before = before
        self.graph = before.graph
        self.steps = dict(before.steps)
        self.startable = list(before.startable)
        self.running = before.running
        self.is_cancelled = before.is_cancelled
        self.commands: list[Command] = []

    def after(self) -> PlanState:
        return replace(
            self.before,
            steps=self.steps,
            startable=tuple(self.startable),
            running=self.running,
            is_cancelled=self.is_cancelled,
        )

    def begin(self) -> None:
        for step_id, progress in self.steps.items():
            self._expect(progress.state is State.PENDING, step_id, "begin twice")
        for step_id in self.graph.steps:
            self._ready_if_free(step_id)

    def fan_out(self, step_id: str, count: int) -> None:
        self._expect_uncounted(step_id)
        if count == 0:
            self._settle(step_id, State.DONE)
        else:
            self._open(step_id, count)

    def give_up_counting(self, step_id: str) -> None:
        self._expect_uncounted(step_id)
        self._settle(step_id, State.FAILED, "what it runs over is not a list")

    def succeed(self, subtask: Subtask) -> None:
        self._end(subtask, State.DONE)

    def fail(self, subtask: Subtask, error: RunvisorError) -> None:
        progress, index = self._running_subtask(subtask)
        delay_s = retry_delay_s(self.graph.steps[subtask.step], error, progress.attempts[index])
        if delay_s is None:
            self._end(subtask, State.FAILED)
            return
        self.running -= 1
        self.steps[subtask.step] = replace(
            progress,
            subtasks=_with(progress.subtasks, index, State.READY),
            again=(*progress.again, (index, delay_s)),
            running=progress.running - 1,
        )
        self._line_up(subtask.step)

    def cancel(self) -> None:
        """End everything: what waits is skipped, what runs has failed."""
        self.is_cancelled = True
        self.startable.clear()
        for step_id in self.graph.order:
            progress = self.steps[step_id]
            if progress.state.is_terminal:
                continue
            self.running -= progress.running
            has_begun = any(progress.attempts)
            self.steps[step_id] = replace(
                progress,
                subtasks=tuple(map(_when_cancelled, progress.subtasks, progress.attempts)),
                again=(),
                fresh=len(progress.subtasks),
                running=0,
                unfinished=0,
            )
            self._settle(step_id, State.FAILED if has_begun else State.SKIPPED, CANCELLED)

    def fill_room(self) -> None:
        """Start what there is room for, one subtask of each step in turn."""
        waiting: list[str] = []
        while self.startable and self.running < self.before.max_parallel:
            step_id = self.startable.pop(0)
            limit = self.graph.steps[step_id].max_parallel
            if limit is not None and self.steps[step_id].running >= limit:
                waiting.append(step_id)
                continue
            self._start_one(step_id)
            if self.steps[step_id].is_startable:
                self.startable.append(step_id)
        self.startable = waiting + self.startable

    def _start_one(self, step_id: str) -> None:
        progress = self.steps[step_id]
        if progress.again:
            (index, delay_s), again, fresh = progress.again[0], progress.again[1:], progress.fresh
        else:
            index, delay_s, again, fresh = progress.fresh, 0.0, (), progress.fresh + 1
        attempt = progress.attempts[index] + 1
        self.steps[step_id] = replace(
            progress,
            state=State.RUNNING,
            subtasks=_with(progress.subtasks, index, State.RUNNING),
            attempts=_with(progress.attempts, index, attempt),
            again=again,
            fresh=fresh,
            running=progress.running + 1,
        )
        self.running += 1
        fans_out = self.graph.steps[step_id].for_each is not None
        self.commands.append(Start(Subtask(step_id, index if fans_out else None), attempt, delay_s))

    def _ready_if_free(self, step_id: str) -> None:
        progress = self.steps[step_id]
        if progress.state is not State.PENDING or progress.blocked_by:
            return
        self.steps[step_id] = replace(progress, state=State.READY)
        if self.graph.steps[step_id].for_each is not None:
            self.commands.append(Count(step_id))
        else:
            self._open(step_id, 1)

    def _open(self, step_id: str, count: int) -> None:
        self.steps[step_id] = replace(
            self.steps[step_id], subtasks=(State.READY,) * count, attempts=(0,) * count, unfinished=count
        )
        self._line_up(step_id)

    def _line_up(self, step_id: str) -> None:
        if step_id not in self.startable:
            self.startable.append(step_id)

    def _end(self, subtask: Subtask, outcome: State) -> None:
        progress, index = self._running_subtask(subtask)
        progress = replace(
            progress,
            subtasks=_with(progress.subtasks, index, outcome),
            running=progress.running - 1,
            unfinished=progress.unfinished - 1,
        )
        self.steps[subtask.step] = progress
        self.running -= 1
        if progress.unfinished:
            return
        failures = progress.subtasks.count(State.FAILED)
        if not failures:
            self._settle(subtask.step, State.DONE)
        elif subtask.index is None:
            self._settle(subtask.step, State.FAILED)
        else:
            self._settle(subtask.step, State.FAILED, f"{failures} of {len(progress.subtasks)} runs failed")

    def _settle(self, step_id: str, outcome: State, reason: str = "") -> None:
        self.steps[step_id] = replace(self.steps[step_id], state=outcome, reason=reason)
        self.commands.append(Settle(step_id, outcome, reason))
        if outcome is State.DONE:
            for dependant in self.graph.dependants[step_id]:
                progress = self.steps[dependant]
                self.steps[dependant] = replace(progress, blocked_by=progress.blocked_by - 1)
                self._ready_if_free(dependant)
        elif not self.is_cancelled:
            self._skip_dependants(step_id)

    def _skip_dependants(self, failed: str) -> None:
        """Skip, without recursion, all that cannot run any more."""
        queue = [(dependant, f"it needs {failed}, which failed") for dependant in self.graph.dependants[failed]]
        for step_id, reason in queue:
            progress = self.steps[step_id]
            if progress.state is not State.PENDING:
                continue
            self.steps[step_id] = replace(progress, state=State.SKIPPED, reason=reason)
            self.commands.append(Settle(step_id, State.SKIPPED, reason))
            because = f"it needs {step_id}, which was skipped because {failed} failed"
            queue += [(dependant, because) for dependant in self.graph.dependants[step_id]]

    def _running_subtask(self, subtask: Subtask) -> tuple[Progress, int]:
        progress = self.steps.get(subtask.step, Progress())
        index = subtask.index or 0
        runs = index < len(progress.subtasks) and progress.subtasks[index] is State.RUNNING
        self._expect(runs, subtask.label, "end, because it is not running")
        return progress, index

    def _expect_uncounted(self, step_id: str) -> None:
        progress = self.steps.get(step_id, Progress())
        fans_out = step_id in self.graph.steps and self.graph.steps[step_id].for_each is not None
        is_waiting = progress.state is State.READY and not progress.subtasks
        self._expect(fans_out and is_waiting, step_id, "be counted, because nobody asked")

    def _expect(self, holds: bool, who: str, what: str) -> None:
        if not holds:
            states = {step_id: str(progress.state) for step_id, progress in self.before.steps.items()}
            raise SupervisionError(f"{who} cannot {what}", who, "", {"states": states})


def _with(items: tuple[_Item, ...], index: int, item: _Item) -> tuple[_Item, ...]:
    return (*items[:index], item, *items[index + 1 :])


def _when_cancelled(state: State, attempts: int) -> State:
    if state.is_terminal:
        return state
    return State.FAILED if attempts else State.SKIPPED
