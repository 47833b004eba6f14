"""The state machine, held against every graph, outcome and order that hypothesis finds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import GuestException, QueueFull, RunvisorError, SupervisionError
from runvisor.supervisor.plan.decompose import Graph, decompose
from runvisor.supervisor.plan.model import Plan, Step
from runvisor.supervisor.plan.references import Reference
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
from runvisor.supervisor.plan.state import CANCELLED, PlanState, advance, initial_state


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    steps: list[Step] = []
    for number in range(draw(st.integers(1, 9))):
        earlier = [step.id for step in steps]
        needs = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        for_each = draw(st.none() | st.sampled_from(earlier).map(Reference)) if earlier else None
        limit = draw(st.none() | st.integers(1, 3)) if for_each else None
        steps.append(
            Step(
                f"s{number}",
                "1",
                "python",
                needs=tuple(needs),
                for_each=for_each,
                max_parallel=limit,
                retries=draw(st.integers(0, 2)),
            )
        )
    return decompose(Plan("p", tuple(draw(st.permutations(steps)))))


@dataclass
class World:
    """Obeys the commands in an order of its own and checks what must always hold."""

    graph: Graph
    max_parallel: int
    data: st.DataObject
    state: PlanState
    running: list[Start]
    counting: list[str]
    settled: dict[str, State]
    starts: dict[Subtask, int]

    def send(self, event: Event) -> None:
        before = self.state
        self.state, commands = advance(before, event)
        assert advance(before, event) == (self.state, commands), "the same event twice gives the same answer"
        for command in commands:
            self.obey(command)
        self.check()

    def obey(self, command: Command) -> None:
        match command:
            case Settle(step, state, _):
                assert step not in self.settled, "a step ends once"
                assert state.is_terminal
                self.settled[step] = state
            case Count(step):
                self.assert_free(step)
                self.counting.append(step)
            case Start(subtask, attempt, delay_s):
                self.assert_free(subtask.step)
                assert attempt == self.starts.get(subtask, 0) + 1
                assert (delay_s > 0) == (attempt > 1)
                assert subtask not in [start.subtask for start in self.running]
                self.starts[subtask] = attempt
                self.running.append(command)

    def assert_free(self, step: str) -> None:
        assert step not in self.settled, "nothing starts after its step ended"
        for need in self.graph.waits_for(step):
            assert self.settled.get(need) is State.DONE, "nothing runs before its needs are done"

    def check(self) -> None:
        assert len(self.running) == self.state.running <= self.max_parallel
        for step_id, progress in self.state.steps.items():
            here = [start for start in self.running if start.subtask.step == step_id]
            assert len(here) == progress.running == progress.subtasks.count(State.RUNNING)
            limit = self.graph.steps[step_id].max_parallel
            assert limit is None or len(here) <= limit
            assert (progress.state.is_terminal) == (step_id in self.settled)
        idle = not self.running and not self.counting
        assert self.state.is_finished or not idle, "as long as anything is left, something is going on"

    def happen(self) -> None:
        """Let one thing happen that may happen now."""
        number = self.data.draw(st.integers(0, len(self.running) + len(self.counting) - 1))
        if number >= len(self.running):
            step = self.counting.pop(number - len(self.running))
            count = self.data.draw(st.none() | st.integers(0, 5))
            self.send(Uncountable(step) if count is None else Counted(step, count))
            return
        thing = self.running.pop(number)
        error = self.data.draw(
            st.sampled_from([None, None, None, GuestException("boom"), QueueFull("full"), RunvisorError("odd")])
        )
        self.send(Succeeded(thing.subtask) if error is None else Failed(thing.subtask, error))


def world_of(graph: Graph, max_parallel: int, data: st.DataObject) -> World:
    return World(graph, max_parallel, data, initial_state(graph, max_parallel=max_parallel), [], [], {}, {})


@given(graphs(), st.integers(1, 4), st.data())
def test_every_plan_ends_with_each_subtask_in_one_terminal_state(
    graph: Graph, max_parallel: int, data: st.DataObject
) -> None:
    world = world_of(graph, max_parallel, data)
    world.send(Begun())
    while not world.state.is_finished:
        world.happen()
    assert not world.running
    assert world.settled.keys() == graph.steps.keys()
    for step_id, progress in world.state.steps.items():
        assert all(state.is_terminal for state in progress.subtasks)
        failed_needs = [need for need in graph.waits_for(step_id) if world.settled[need] is not State.DONE]
        assert (progress.state is State.SKIPPED) == bool(failed_needs), "only what depends on a failure is skipped"
        if progress.state is State.SKIPPED:
            assert not progress.subtasks
            assert any(f"it needs {need}, which" in progress.reason for need in failed_needs)
        if progress.state is State.DONE:
            assert set(progress.subtasks) <= {State.DONE}
        if progress.state is State.FAILED and progress.subtasks:
            assert State.FAILED in progress.subtasks


@given(graphs(), st.integers(1, 4), st.integers(0, 12), st.data())
def test_cancellation_ends_everything_at_once(
    graph: Graph, max_parallel: int, patience: int, data: st.DataObject
) -> None:
    world = world_of(graph, max_parallel, data)
    world.send(Begun())
    for _ in range(patience):
        if world.state.is_finished:
            return
        world.happen()
    if world.state.is_finished:
        return
    done = {step_id for step_id, state in world.settled.items() if state is State.DONE}
    was_running = {start.subtask for start in world.running}
    world.running.clear()
    world.counting.clear()
    world.send(Cancelled())
    assert world.state.is_finished
    assert not world.running
    for step_id, progress in world.state.steps.items():
        assert (world.settled[step_id] is State.DONE) == (step_id in done)
        assert all(state.is_terminal for state in progress.subtasks)
    for subtask in was_running:
        assert world.state.steps[subtask.step].subtasks[subtask.index or 0] is State.FAILED
        assert world.settled[subtask.step] is State.FAILED
        assert world.state.steps[subtask.step].reason == CANCELLED


def simple(*steps: Step, max_parallel: int = 8) -> tuple[PlanState, tuple[Command, ...]]:
    return advance(initial_state(decompose(Plan("p", steps)), max_parallel=max_parallel), Begun())


def test_a_failure_skips_what_depends_on_it_with_the_reason_and_nothing_else() -> None:
    state, commands = simple(
        Step("load", "1", "python"),
        Step("clean", "1", "python", needs=("load",)),
        Step("plot", "1", "python", needs=("clean",)),
        Step("other", "1", "python"),
    )
    assert [command.subtask.step for command in commands if isinstance(command, Start)] == ["load", "other"]
    state, commands = advance(state, Failed(Subtask("load"), GuestException("boom")))
    assert commands == (
        Settle("load", State.FAILED, ""),
        Settle("clean", State.SKIPPED, "it needs load, which failed"),
        Settle("plot", State.SKIPPED, "it needs clean, which was skipped because load failed"),
    )
    assert not state.is_finished
    state, _ = advance(state, Succeeded(Subtask("other")))
    assert state.is_finished


def test_a_fan_out_does_not_keep_other_steps_from_running() -> None:
    state, _ = simple(
        Step("list", "1", "python"),
        Step("many", "1", "python", for_each=Reference("list")),
        Step("late", "1", "python", needs=("list",)),
        max_parallel=1,
    )
    state, _ = advance(state, Succeeded(Subtask("list")))
    order: list[str] = []
    state, commands = advance(state, Counted("many", 3))
    running = state
    current = Subtask("late")
    while not running.is_finished:
        running, commands = advance(running, Succeeded(current))
        order.append(current.label)
        current = next((command.subtask for command in commands if isinstance(command, Start)), current)
    assert order == ["late", "many[0]", "many[1]", "many[2]"]


def test_a_fan_out_over_nothing_is_done_at_once() -> None:
    state, _ = simple(Step("list", "1", "python"), Step("many", "1", "python", for_each=Reference("list")))
    state, _ = advance(state, Succeeded(Subtask("list")))
    state, commands = advance(state, Counted("many", 0))
    assert commands == (Settle("many", State.DONE, ""),)


def test_runs_of_a_fan_out_are_independent_and_one_failure_fails_the_step() -> None:
    state, _ = simple(Step("list", "1", "python"), Step("many", "1", "python", for_each=Reference("list")))
    state, _ = advance(state, Succeeded(Subtask("list")))
    state, _ = advance(state, Counted("many", 3))
    state, commands = advance(state, Failed(Subtask("many", 1), GuestException("boom")))
    assert commands == ()
    state, _ = advance(state, Succeeded(Subtask("many", 2)))
    state, commands = advance(state, Succeeded(Subtask("many", 0)))
    assert commands == (Settle("many", State.FAILED, "1 of 3 runs failed"),)


@pytest.mark.parametrize(
    "event",
    [
        Begun(),
        Succeeded(Subtask("b")),
        Succeeded(Subtask("a", 1)),
        Succeeded(Subtask("nowhere")),
        Failed(Subtask("b"), GuestException("boom")),
        Counted("a", 3),
        Uncountable("nowhere"),
    ],
)
def test_an_event_that_cannot_happen_is_a_defect_and_says_so(event: Event) -> None:
    state, _ = simple(Step("a", "1", "python"), Step("b", "1", "python", needs=("a",)))
    with pytest.raises(SupervisionError, match="cannot"):
        advance(state, event)
