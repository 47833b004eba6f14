"""The manager: data flow, parallel runs, failures, retries, events, ceilings, cancellation."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import numpy as np
import pytest

from runvisor.policies.errors import (
    CapabilityDenied,
    GuestException,
    InvalidPlan,
    ProtocolError,
    QueueFull,
    RunvisorError,
    TrustViolation,
    WorkerCrashed,
)
from runvisor.policies.permissions import Network, Permissions
from runvisor.policies.result import Result
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.trust import Trust
from runvisor.policies.values import pack, unpack
from runvisor.supervisor.plan.decompose import decompose
from runvisor.supervisor.plan.events import PlanEvent
from runvisor.supervisor.plan.inputs import MAX_FAN_OUT
from runvisor.supervisor.plan.manager import Manager
from runvisor.supervisor.plan.markdown import parse_plan
from runvisor.supervisor.plan.model import Plan, Step
from runvisor.supervisor.plan.outcome import PlanResult
from runvisor.supervisor.plan.run import Run, Settings
from runvisor.supervisor.plan.signals import State
from tests.supervisor.plan.stub import STUB_ISOLATION, Call, RecordingExecutor, python_executor, run_python

WAIT_S = 20


def run(text: str, **options: Any) -> PlanResult:
    return Manager(python_executor(), **options).run(parse_plan(text))


def states(result: PlanResult) -> dict[str, str]:
    return {step.step: str(step.state) for step in result.steps}


def test_values_flow_to_the_steps_that_mention_them() -> None:
    result = run(
        "```py id=load\n[1, 2, 3]\n```\n"
        "```py id=double\n[2 * x for x in inputs['load']]\n```\n"
        "```py id=total\ndef main(data):\n    return sum(data['load']) + sum(data.get('double'))\n```\n"
    )
    assert result.ok
    assert result.values == {"load": [1, 2, 3], "double": [2, 4, 6], "total": 18}
    assert result.unwrap()["total"] == 18
    assert result.exit_status == 0


def test_arrays_arrive_as_arrays() -> None:
    result = run(
        "```py id=load\nimport numpy\nnumpy.arange(6.0).reshape(2, 3)\n```\n"
        "```py id=use\nx = inputs['load']\n{'type': type(x).__name__, 'sum': x.sum(axis=0)}\n```\n"
    )
    assert result["use"].value["type"] == "ndarray"
    assert np.array_equal(result["use"].value["sum"], [3.0, 5.0, 7.0])


def test_a_step_sees_static_inputs_and_its_needs_and_nothing_else() -> None:
    executor = python_executor()
    Manager(executor).run(
        parse_plan(
            "```py id=a\n1\n```\n```py id=b\n2\n```\n"
            """```py id=c needs=b inputs='{"n": 3}'\n0\n```\n```py id=d inputs=a\n0\n```\n"""
        )
    )
    inputs = {call.label: call.inputs for call in executor.calls}
    assert inputs["c"] == {"n": 3, "b": 2}
    assert inputs["d"] == 1


def test_for_each_runs_once_per_element_and_keeps_the_order() -> None:
    result = run(
        "```py id=load\n{'rows': [3, 1, 2]}\n```\n"
        "```py id=each for_each=steps.load.value.rows\n[inputs['index'], inputs['item'] * 10]\n```\n"
        "```py id=sum\nsum(pair[1] for pair in inputs['each'])\n```\n"
    )
    assert result["each"].value == [[0, 30], [1, 10], [2, 20]]
    assert [one.index for one in result["each"].subtasks] == [0, 1, 2]
    assert result["sum"].value == 60


def test_for_each_over_a_dict_gives_pairs_and_over_an_array_its_rows() -> None:
    result = run(
        "```py id=d\n{'a': 1, 'b': 2}\n```\n```py id=pairs for_each=d\ninputs['item']\n```\n"
        "```py id=m\nimport numpy\nnumpy.eye(2)\n```\n```py id=rows for_each=m\ninputs['item'].tolist()\n```\n"
    )
    assert result["pairs"].value == [["a", 1], ["b", 2]]
    assert result["rows"].value == [[1.0, 0.0], [0.0, 1.0]]


def test_for_each_may_make_the_element_the_whole_input() -> None:
    executor = python_executor()
    result = Manager(executor).run(
        parse_plan(
            "```py id=l\n[{'args': [1]}, {'args': [2]}]\n```\n```py id=e for_each=l inputs=item.args\ninputs[0]\n```\n"
        )
    )
    assert result["e"].value == [1, 2]


def test_for_each_over_nothing_gives_an_empty_list() -> None:
    result = run("```py id=l\n[]\n```\n```py id=e for_each=l\n1\n```\n```py id=n\nlen(inputs['e'])\n```\n")
    assert (result["e"].value, result["n"].value) == ([], 0)


@pytest.mark.parametrize(
    "value", ["3", "'text'", "None", f"list(range({MAX_FAN_OUT + 1}))", "__import__('numpy').zeros(())"]
)
def test_for_each_over_anything_else_fails_that_step_with_the_reason(value: str) -> None:
    result = run(f"```py id=l\n{value}\n```\n```py id=e for_each=l\n1\n```\n```py id=x needs=e\n1\n```\n")
    assert states(result) == {"l": "done", "e": "failed", "x": "skipped"}
    assert isinstance(result["e"].error, InvalidPlan)
    assert "steps.l.value" in str(result["e"].error)


def test_a_reference_to_a_part_that_is_not_there_fails_that_step_with_the_reason() -> None:
    result = run("```py id=a\n{'rows': []}\n```\n```py id=b inputs=a.cols\n1\n```\n")
    assert "it has rows" in str(result["b"].error)


def test_a_failing_step_stops_only_what_depends_on_it() -> None:
    result = run(
        "```py id=bad\n1 / 0\n```\n```py id=child\ninputs['bad']\n```\n```py id=grandchild\ninputs['child']\n```\n"
        "```py id=fine\n1\n```\n```py id=after\ninputs['fine']\n```\n"
    )
    assert states(result) == {
        "bad": "failed",
        "child": "skipped",
        "grandchild": "skipped",
        "fine": "done",
        "after": "done",
    }
    assert isinstance(result["bad"].error, GuestException)
    assert result["child"].reason == "it needs bad, which failed"
    assert (result.ok, result.exit_status) == (False, 1)
    with pytest.raises(GuestException, match="ZeroDivisionError"):
        result.unwrap()


def test_a_result_that_holds_an_error_fails_the_step_and_keeps_its_output() -> None:
    def answer(call: Call) -> Any:
        return Result(STUB_ISOLATION, stdout="so far", error=GuestException("boom"))

    result = Manager(RecordingExecutor(answer)).run(parse_plan("```py id=a\n1\n```\n"))
    (subtask,) = result["a"].subtasks
    assert subtask.result is not None
    assert (result["a"].state, subtask.result.stdout, result["a"].value) == (State.FAILED, "so far", None)


def test_one_bad_element_leaves_the_others_their_results() -> None:
    result = run("```py id=l\n[1, 0, 2]\n```\n```py id=e for_each=l\n6 // inputs['item']\n```\n")
    step = result["e"]
    assert (step.state, step.reason) == (State.FAILED, "1 of 3 runs failed")
    assert [str(one.state) for one in step.subtasks] == ["done", "failed", "done"]
    assert step.subtasks[2].result is not None
    assert step.subtasks[2].result.value == 3


@pytest.mark.parametrize("raised", [KeyError("x"), SystemExit(3), KeyboardInterrupt(), MemoryError(), RecursionError()])
def test_whatever_an_executor_raises_becomes_that_steps_failure(raised: BaseException) -> None:
    def answer(call: Call) -> Any:
        if call.label == "bad":
            raise raised
        return 1

    result = Manager(RecordingExecutor(answer)).run(parse_plan("```py id=bad\n1\n```\n```py id=good\n1\n```\n"))
    assert states(result) == {"bad": "failed", "good": "done"}
    assert isinstance(result["bad"].error, ProtocolError)
    assert type(raised).__name__ in str(result["bad"].error)


def test_an_executor_that_returns_something_else_fails_the_step() -> None:
    class Wrong:
        def run(self, code: str | bytes, **rest: Any) -> Any:
            return 42

    result = Manager(Wrong()).run(parse_plan("```py id=a\n1\n```\n"))
    assert "returned a int, not a Result" in str(result["a"].error)


def test_an_error_with_details_that_cannot_be_sent_on_loses_only_those() -> None:
    def answer(call: Call) -> Any:
        raise GuestException("boom", "here", "", {"frame": object()})

    result = Manager(RecordingExecutor(answer)).run(parse_plan("```py id=a\n1\n```\n"))
    error = PlanResult.from_wire(unpack(pack(result.to_wire())))["a"].error
    assert isinstance(error, GuestException)
    assert (error.what, error.where, error.details) == ("boom", "here", {})


def test_an_executor_that_never_answers_is_given_up() -> None:
    release = threading.Event()
    try:

        def answer(call: Call) -> Any:
            if call.label == "hung":
                release.wait(WAIT_S)
            return 1

        plan = parse_plan(
            "```py id=hung timeout=1ms\n1\n```\n```py id=after needs=hung\n1\n```\n```py id=free\n1\n```\n"
        )
        result = Manager(RecordingExecutor(answer), overrun_s=0.05).run(plan)
    finally:
        release.set()
    assert states(result) == {"hung": "failed", "after": "skipped", "free": "done"}
    assert "silent" in str(result["hung"].error)


def test_a_failure_that_was_not_the_codes_is_tried_again() -> None:
    failures = [QueueFull("full", "", "", {"retry_after_s": 0.001}), WorkerCrashed("died")]

    def answer(call: Call) -> Any:
        if failures:
            raise failures.pop(0)
        return "at last"

    events: list[PlanEvent] = []
    result = Manager(RecordingExecutor(answer), observer=events.append).run(parse_plan("```py id=a\n1\n```\n"))
    assert result["a"].value == "at last"
    assert result["a"].subtasks[0].attempts == 3
    assert [(event.kind, event.attempt) for event in events[1:-1]] == [
        ("started", 1),
        ("retrying", 2),
        ("retrying", 3),
        ("finished", 3),
    ]
    assert isinstance(events[2].error, QueueFull)


@pytest.mark.parametrize(("attributes", "calls"), [("", 1), ("retries=2", 3), ("retries=2 network=example.com", 1)])
def test_a_guests_failure_is_tried_again_only_if_the_step_asks_and_nothing_can_leak(
    attributes: str, calls: int
) -> None:
    def answer(call: Call) -> Any:
        raise GuestException("boom")

    executor = RecordingExecutor(answer)
    Manager(executor).run(parse_plan(f"```py id=a {attributes}\n1\n```\n"))
    assert len(executor.calls) == calls


def test_independent_steps_run_at_once() -> None:
    together = threading.Barrier(3, timeout=WAIT_S)

    def answer(call: Call) -> Any:
        together.wait()
        return 1

    assert Manager(RecordingExecutor(answer)).run(parse_plan("```py\n1\n```\n" * 3)).ok


def test_no_more_run_at_once_than_allowed() -> None:
    executor = RecordingExecutor(lambda call: [1] * 12 if call.label == "l" else time.monotonic())
    plan = parse_plan(
        "```py id=l\n1\n```\n```py id=e for_each=l max_parallel=2\n1\n```\n" + "```py needs=l\n1\n```\n" * 6
    )
    assert Manager(executor, max_parallel=3).run(plan).ok
    assert executor.most_at_once <= 3


def test_each_run_gets_its_own_steps_grant() -> None:
    executor = python_executor()
    plan = parse_plan("```py id=a timeout=2s trust=verified\n1\n```\n```py id=b memory=8MB\n1\n```\n")
    Manager(executor, trust=Trust.VERIFIED).run(plan)
    grants = {call.label: (call.trust, call.permissions) for call in executor.calls}
    assert grants["a"] == (Trust.VERIFIED, Permissions(timeout_s=2.0))
    assert grants["b"] == (Trust.UNTRUSTED, Permissions(memory_bytes=8 * 2**20))


def test_what_a_step_wants_of_its_runtime_reaches_the_executor() -> None:
    executor = RecordingExecutor(lambda call: 1)
    Manager(executor).run(parse_plan("```py id=a objective='slo 100ms' critical=true\n1\n```\n```py id=b\n1\n```\n"))
    wanted = {call.label: (call.objective, call.critical) for call in executor.calls}
    assert wanted == {"a": (Objective("slo", slo_s=0.1), True), "b": (None, False)}


def test_an_agents_own_claim_of_trust_is_refused_before_anything_runs() -> None:
    executor = python_executor()
    plan = parse_plan("---\ntrust: trusted\n---\n```py id=a\n1\n```\n```py id=b trust=trusted\n1\n```\n")
    with pytest.raises(TrustViolation) as caught:
        Manager(executor).run(plan)
    assert caught.value.where == "step b, line 8"
    assert executor.calls == []


def test_more_than_the_owner_may_grant_is_refused_before_anything_runs() -> None:
    executor = python_executor()
    plan = parse_plan("```py id=a\n1\n```\n```py id=b network=example.com\n1\n```\n")
    with pytest.raises(CapabilityDenied) as caught:
        Manager(executor, permissions=Permissions()).run(plan)
    assert "network.allowed_hosts" in str(caught.value)
    assert executor.calls == []
    assert Manager(executor, permissions=Permissions(network=Network(("example.com",)))).run(plan).ok


def test_a_plan_that_does_not_decompose_runs_nothing() -> None:
    executor = python_executor()
    with pytest.raises(InvalidPlan):
        Manager(executor).run(parse_plan("```py id=a\n1\n```\n```py id=b needs=nowhere\n1\n```\n"))
    assert executor.calls == []


def test_observers_see_every_transition_in_order() -> None:
    events: list[PlanEvent] = []
    run(
        "---\ntitle: T\n---\n```py id=l\n[1, 0]\n```\n```py id=e for_each=l max_parallel=1\n1 / inputs['item']\n```\n"
        "```py id=after\ninputs['e']\n```\n",
        observer=events.append,
    )
    seen = [(event.kind, event.step, event.index) for event in events]
    assert seen == [
        ("plan_started", "", None),
        ("started", "l", None),
        ("finished", "l", None),
        ("expanded", "e", None),
        ("started", "e", 0),
        ("finished", "e", 0),
        ("started", "e", 1),
        ("failed", "e", 1),
        ("failed", "e", None),
        ("skipped", "after", None),
        ("plan_finished", "", None),
    ]
    finished = events[2]
    assert (finished.plan, finished.runtime, finished.variant, finished.isolation) == (
        "T",
        "python",
        "native",
        STUB_ISOLATION.engine,
    )
    assert "Chose python/native" in finished.explanation
    assert finished.latency_s is not None
    assert (events[3].count, events[8].reason, events[8].count) == (2, "1 of 2 runs failed", 2)
    assert isinstance(events[7].error, GuestException)
    assert events[9].reason == "it needs e, which failed"
    assert all(event.at_s <= later.at_s for event, later in itertools.pairwise(events))


def test_an_observer_that_fails_does_not_stop_the_plan() -> None:
    def observer(event: PlanEvent) -> None:
        raise RuntimeError("the screen is gone")

    assert run("```py id=a\n1\n```\n", observer=observer).ok


def test_cancellation_returns_at_once_and_starts_nothing_more() -> None:
    started, release, cancel = threading.Event(), threading.Event(), threading.Event()

    def answer(call: Call) -> Any:
        if call.label == "slow":
            started.set()
            release.wait(WAIT_S)
        return 1

    executor = RecordingExecutor(answer)
    plan = parse_plan(
        "```py id=quick\n1\n```\n```py id=slow needs=quick\n1\n```\n```py id=after\ninputs['slow']\n```\n"
    )
    results: list[PlanResult] = []
    thread = threading.Thread(target=lambda: results.append(Manager(executor).run(plan, cancel)))
    thread.start()
    try:
        assert started.wait(WAIT_S)
        cancel.set()
        thread.join(WAIT_S)
        assert not thread.is_alive(), "it waited for the step instead of giving it up"
    finally:
        release.set()
        thread.join(WAIT_S)
    (result,) = results
    assert states(result) == {"quick": "done", "slow": "failed", "after": "skipped"}
    assert (result.cancelled, result.ok) == (True, False)
    assert "cancelled" in str(result["slow"].error)
    assert result["after"].reason == "the plan was cancelled"
    assert executor.labels() == ["quick", "slow"]


def test_a_plan_cancelled_before_it_starts_runs_nothing() -> None:
    cancel = threading.Event()
    cancel.set()
    executor = python_executor()
    result = Manager(executor).run(parse_plan("```py id=a\n1\n```\n"), cancel)
    assert (states(result), executor.calls) == ({"a": "skipped"}, [])


def test_cancellation_ends_the_wait_before_a_retry() -> None:
    cancel = threading.Event()

    def answer(call: Call) -> Any:
        cancel.set()
        raise QueueFull("full", "", "", {"retry_after_s": WAIT_S})

    executor = RecordingExecutor(answer)
    result = Manager(executor).run(parse_plan("```py id=a\n1\n```\n"), cancel)
    assert (states(result), len(executor.calls)) == ({"a": "failed"}, 1)


def test_one_manager_runs_several_plans_at_once() -> None:
    manager = Manager(RecordingExecutor(run_python))
    plans = [Plan(f"p{n}", (Step("a", str(n), "python"), Step("b", "inputs['a'] + 1", "python"))) for n in range(4)]
    results: dict[str, Any] = {}
    threads = [
        threading.Thread(target=lambda p=plan: results.update({p.title: manager.run(p)["b"].value})) for plan in plans
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert results == {"p0": 1, "p1": 2, "p2": 3, "p3": 4}


def test_a_wide_fan_out_stays_quick() -> None:
    executor = RecordingExecutor(lambda call: list(range(1000)) if call.label == "l" else call.inputs["item"])
    started = time.process_time()
    result = Manager(executor).run(parse_plan("```py id=l\n1\n```\n```py id=e for_each=l\n1\n```\n"))
    assert result["e"].value == list(range(1000))
    assert time.process_time() - started < 10


def test_errors_of_ours_are_kept_as_they_are() -> None:
    def answer(call: Call) -> Any:
        raise RunvisorError("said so", "there", "do this", {"n": 1})

    error = Manager(RecordingExecutor(answer)).run(parse_plan("```py id=a\n1\n```\n"))["a"].error
    assert error is not None
    assert (type(error), error.args) == (RunvisorError, ("said so", "there", "do this", {"n": 1}))


def test_a_grant_is_narrowed_to_every_ceiling_even_if_the_check_at_load_were_passed_by() -> None:
    executor = python_executor()
    plan = Plan("p", (Step("a", "1", "python", permissions=Permissions(timeout_s=9.0, tools=("search",))),))
    settings = Settings(executor, 1, Permissions(timeout_s=1.0), None, 60.0, time.monotonic)
    assert Run(decompose(plan), settings, threading.Event()).to_end().ok
    assert executor.calls[0].permissions == Permissions(timeout_s=1.0)
