"""Results and events survive the wire and become documents; hostile wire data is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import GuestException, ProtocolError
from runvisor.policies.result import Artifact, Isolation, Result, Usage
from runvisor.policies.scheduling.decision import Candidate, Decision
from runvisor.policies.values import pack, unpack
from runvisor.supervisor.plan.events import KINDS, PlanEvent
from runvisor.supervisor.plan.outcome import PlanResult, StepOutcome, SubtaskOutcome
from runvisor.supervisor.plan.signals import State

DECISION = Decision("python/native", (Candidate("python/native", 0.001, 0.0002, 9), Candidate("wasm/cpython")))
RESULT = Result(
    Isolation("namespaces+seccomp", ("landlock",)),
    {"n": 1, "big": 2**80},
    "out",
    "err",
    (Artifact("plot", "image/png", b"\x89PNG"),),
    usage=Usage(wall_s=0.01),
    runtime="python",
    variant="native",
    language="python",
    decision=DECISION,
)
ERROR = GuestException("boom", "line 3", "fix it", {"traceback": "..."})
PLAN_RESULT = PlanResult(
    "T",
    (
        StepOutcome("a", State.DONE, "A", subtasks=(SubtaskOutcome(None, State.DONE, 1, RESULT, None, 0.1, 0.3),)),
        StepOutcome(
            "b",
            State.FAILED,
            fans_out=True,
            reason="1 of 2 runs failed",
            error=ERROR,
            subtasks=(
                SubtaskOutcome(0, State.DONE, 1, RESULT, None, 0.3, 0.4),
                SubtaskOutcome(1, State.FAILED, 2, None, ERROR, 0.3, 0.6),
            ),
        ),
        StepOutcome("c", State.SKIPPED, reason="it needs b, which failed"),
    ),
    0.7,
)


def test_a_result_survives_the_wire_with_decisions_and_errors() -> None:
    copy = PlanResult.from_wire(unpack(pack(PLAN_RESULT.to_wire())))
    assert copy.to_document() == PLAN_RESULT.to_document()
    run = copy["a"].subtasks[0].result
    assert run is not None
    assert run.decision == DECISION
    assert isinstance(copy["b"].error, GuestException)
    assert copy["b"].error.details == {"traceback": "..."}


def test_arrays_survive_the_wire() -> None:
    run = SubtaskOutcome(None, State.DONE, 1, Result(Isolation("x"), np.arange(4)))
    result = PlanResult("T", (StepOutcome("a", State.DONE, subtasks=(run,)),))
    copy = PlanResult.from_wire(unpack(pack(result.to_wire())))
    assert np.array_equal(copy["a"].value, np.arange(4))


def test_a_document_is_json() -> None:
    document = json.loads(json.dumps(PLAN_RESULT.to_document(), allow_nan=False))
    assert document["ok"] is False
    assert document["steps"][0]["value"] == {"n": 1, "big": 2**80}
    assert document["steps"][1]["error"]["type"] == "GuestException"
    assert document["steps"][1]["runs"][1]["attempts"] == 2
    assert "Chose python/native" in document["steps"][0]["runs"][0]["result"]["decision"]["explanation"]


def test_latency_spans_a_steps_runs() -> None:
    assert PLAN_RESULT["b"].latency_s == pytest.approx(0.3)
    assert PLAN_RESULT["c"].latency_s is None


@given(
    st.sampled_from(KINDS),
    st.text(max_size=20),
    st.floats(0, 1e6),
    st.none() | st.integers(0, 5000),
    st.sampled_from([None, ERROR]),
)
def test_every_event_survives_the_wire(kind: Any, step: str, at_s: float, index: int | None, error: Any) -> None:
    event = PlanEvent(kind, "T", at_s, step, index=index, error=error)
    copy = PlanEvent.from_wire(unpack(pack(event.to_wire())))
    assert copy.to_wire() == event.to_wire()
    assert copy.error is None or isinstance(copy.error, GuestException)


WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["done", "failed"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["title", "steps", "state", "kind", "error", "result"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(WILD)
def test_wild_data_is_no_result_and_no_event(data: Any) -> None:
    for cls in (PlanResult, PlanEvent):
        with pytest.raises(ProtocolError):
            cls.from_wire(data)


def test_a_step_that_claims_to_be_done_without_a_run_is_refused() -> None:
    wire = PLAN_RESULT.to_wire()
    wire["steps"][0]["subtasks"] = []
    with pytest.raises(ProtocolError, match="without exactly one run"):
        PlanResult.from_wire(wire)
