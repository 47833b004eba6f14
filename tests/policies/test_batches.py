"""Batches on the wire, and how large they become."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.batches import MAX_INPUTS, Answer, BatchSize, endings_of
from runvisor.policies.errors import GuestException, InvalidTask, ProtocolError
from runvisor.policies.result import Artifact, Isolation, Result, Usage

JAILED = Isolation("wasmtime", layers=("wasm memory sandbox",))
ALONE = Isolation("wasmtime", layers=("wasm memory sandbox",), shared_with=("nobody",))


def through(*endings: Any) -> list[Any]:
    answer = Answer()
    for ending in endings:
        answer.add(ending)
    return endings_of(answer.to_wire(), runtime="wasm", variant="module", language="wat")


def test_endings_come_out_as_they_went_in() -> None:
    names = {"runtime": "wasm", "variant": "module", "language": "wat"}
    plain = Result(JAILED, value=[1, 2.5], usage=Usage(wall_s=0.5, instructions=7), **names)
    failed = Result(ALONE, error=GuestException("it trapped", "f"), stdout="said", stderr="so", **names)
    refused = InvalidTask("a str where an int is due", "inputs[0]", "pass an int")
    assert [str(ending) for ending in through(plain, failed, refused)] == [str(plain), str(failed), str(refused)]


def test_what_is_rare_is_kept_too() -> None:
    rich = Result(JAILED, artifacts=(Artifact("a.txt", "text/plain", b"x"),), files={"out": b"y"}, language="wat")
    assert through(rich)[0] == rich


def test_what_all_have_in_common_goes_once() -> None:
    answer = Answer()
    for number in range(50):
        answer.add(Result(JAILED, value=number))
    assert len(answer.to_wire()["isolations"]) == 1


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"endings": [{}], "isolations": []},
        {"endings": [{"value": b"\xc0", "isolation": 0, "usage": []}], "isolations": []},
        {"endings": 3, "isolations": []},
    ],
)
def test_anything_else_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        endings_of(data)


def test_an_answer_holds_no_more_than_was_asked() -> None:
    answer = Answer()
    for _ in range(3):
        answer.add(Result(JAILED))
    with pytest.raises(ProtocolError, match="3 endings for 2 inputs"):
        endings_of(answer.to_wire(), most=2)


@given(st.lists(st.floats(1e-7, 100.0), max_size=30))
def test_a_batch_is_never_empty_nor_beyond_the_most(seconds: list[float]) -> None:
    size = BatchSize()
    for taken in seconds:
        before = size.inputs
        size.note(inputs=before, seconds=taken)
        assert 1 <= size.inputs <= min(MAX_INPUTS, before * 8)


def test_slow_programs_stay_alone() -> None:
    size = BatchSize(target_s=0.02)
    size.note(inputs=1, seconds=0.5)
    assert size.inputs == 1
