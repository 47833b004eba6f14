"""Results."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import GuestException, ProtocolError, TimeLimitExceeded
from runvisor.policies.result import Artifact, Isolation, Result, Usage
from runvisor.policies.scheduling.decision import Candidate, Decision
from runvisor.policies.values import pack, unpack
from tests.policies.test_values import values

ISOLATION = Isolation(
    "namespaces+seccomp",
    layers=("user namespace", "seccomp"),
    limits_enforced=("timeout_s",),
    no_spawn=True,
    hardening_off=("x",),
    narrowed=("y",),
    shared_with=(),
    note="n",
)
RESULT = Result(
    ISOLATION,
    value={"n": 1},
    stdout="out",
    stderr="err",
    artifacts=(Artifact("plot.png", "image/png", b"\x89PNG"),),
    usage=Usage(wall_s=0.1, queue_s=0.01, cpu_s=0.05, peak_memory_bytes=5, start_kind="cold"),
    runtime="python",
    variant="native",
    language="python",
)


@given(values)
def test_a_result_survives_the_wire(value: Any) -> None:
    result = Result(ISOLATION, value, "o", "e", RESULT.artifacts, None, RESULT.usage, "python", "native", "python")
    assert Result.from_wire(unpack(pack(result.to_wire()))) == result


def test_an_error_survives_the_wire_and_unwrap_raises_it() -> None:
    result = Result(ISOLATION, error=GuestException("boom", "1:1", "", {"traceback": "t"}))
    back = Result.from_wire(unpack(pack(result.to_wire())))
    assert not back.ok
    with pytest.raises(GuestException, match="boom") as caught:
        back.unwrap()
    assert caught.value.details == {"traceback": "t"}
    assert RESULT.ok
    assert RESULT.unwrap() == {"n": 1}


def test_the_decision_is_attached_here_and_never_sent() -> None:
    decision = Decision("python/native", (Candidate("python/native"),))
    attached = RESULT.with_decision(decision)
    assert attached.decision is decision
    assert "decision" not in attached.to_wire()
    assert attached.to_document()["decision"]["explanation"].startswith("Chose python/native")


def test_the_document_is_json_whatever_the_value() -> None:
    odd = {"a": np.arange(2), "n": float("nan"), "b": b"x", "big": 10**6000, "c": np.array([1j])}
    error = TimeLimitExceeded("late", "", "", {"type": "spoof", "message": "spoof", "spent": float("inf")})
    document = json.loads(json.dumps(Result(ISOLATION, odd, error=error).to_document(), allow_nan=False))
    assert document["error"] == {"type": "TimeLimitExceeded", "message": "late", "spent": "inf"}
    assert document["artifacts"] == []


WIRE = RESULT.to_wire()
WRONG: st.SearchStrategy[Any] = (
    st.none()
    | st.integers()
    | st.text()
    | st.binary(max_size=9)
    | st.just({})
    | st.just({"x": []})
    | st.just([[1, 2, 3]])
)


@given(st.sampled_from(sorted(WIRE)), WRONG)
def test_hostile_wire_data_raises_protocol_error_and_nothing_else(key: str, wrong: Any) -> None:
    try:
        result = Result.from_wire({**WIRE, key: wrong})
    except ProtocolError:
        return
    json.dumps(result.to_document(), allow_nan=False)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("usage", {"wall_s": "1"}),
        ("usage", {"wall_s": float("nan")}),
        ("usage", {"price": 1}),
        ("usage", {"start_kind": "tepid"}),
        ("artifacts", [["a", "b", 1 << 40]]),
        ("artifacts", [["a", "b", "text"]]),
        ("artifacts", [["a", "b"]]),
        ("error", 5),
        ("error", []),
        ("isolation", []),
        ("isolation", {"engine": "x", "strength": 9}),
    ],
)
def test_a_part_of_the_wrong_shape_is_refused(key: str, wrong: Any) -> None:
    if key == "error":  # an error is always an error, of whatever kind it can be read as
        assert isinstance(Result.from_wire({**WIRE, key: wrong}).error, ProtocolError)
        return
    with pytest.raises(ProtocolError):
        Result.from_wire({**WIRE, key: wrong})
