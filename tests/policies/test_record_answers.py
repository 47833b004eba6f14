"""What an engine hands over is believed to be bytes of the right size, and nothing more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runvisor.policies.dtypes import dtype_of
from runvisor.policies.errors import InvalidTask, OutputLimitExceeded, ProtocolError
from runvisor.policies.record_answers import Answer, check_task
from runvisor.policies.record_inputs import PARTS, RecordInputs
from runvisor.policies.records import parse_program
from runvisor.policies.values import pack

SOURCE = """struct state { u32 n; }; struct output { u32 sum; u8 kind; };
int on_record(struct record *r, struct state *s, struct output *o) { return 1; }"""
RECORDS = np.arange(6, dtype="<u2")
PROGRAM = parse_program(SOURCE, RECORDS.dtype, collects=True)
STATE = bytes([7, 0, 0, 0])
MARKS = bytes([1, 0, 255, 0, 0, 2])
OUTPUTS = b"".join(bytes([n, 0, 0, 0, n, 0xEE, 0xEE, 0xEE]) for n in range(6))


def answer(*parts: str, output_bytes: int = 1 << 20) -> Answer:
    return Answer(PROGRAM, RecordInputs.of({"records": RECORDS, "return": list(parts)}, SOURCE), output_bytes)


def whole(part: str, output_bytes: int) -> Answer:
    """An answer that has taken everything."""
    made = answer(part, output_bytes=output_bytes)
    made.take(0, MARKS, OUTPUTS)
    return made


def test_parts_are_put_together_from_marks_and_outputs() -> None:
    made = answer(*PARTS)
    made.take(0, MARKS[:4], OUTPUTS[:32])
    made.take(4, memoryview(MARKS)[4:], bytearray(OUTPUTS[32:]))
    value, size = made.value(3, STATE)
    assert (value["selected"], value["state"], list(value)[2:]) == (3, {"n": 7}, list(PARTS))
    assert value["indices"].tolist() == [0, 2, 5]
    assert value["mask"].tolist() == [True, False, True, False, False, True]
    assert value["mask"].view("u1").tolist() == [1, 0, 1, 0, 0, 1], "any mark that is not zero is one true"
    assert value["records"].tolist() == [0, 2, 5]
    assert value["outputs"].tolist() == [(0, 0), (2, 2), (5, 5)]
    assert PROGRAM.output is not None
    assert value["outputs"].dtype == dtype_of(PROGRAM.output)
    assert b"\xee" not in value["outputs"].tobytes(), "nothing lies between the fields"
    assert size == sum(value[part].nbytes for part in PARTS)


def test_nothing_is_kept_of_the_buffers() -> None:
    made, marks, outputs = answer(*PARTS), bytearray(MARKS), bytearray(OUTPUTS)
    made.take(0, marks, outputs)
    marks[:], outputs[:] = b"\1" * 6, bytes(48)
    assert made.value(3, STATE)[0]["outputs"]["sum"].tolist() == [0, 2, 5]


def test_marks_count_and_not_what_an_engine_says() -> None:
    made = answer("mask")
    made.take(0, MARKS, OUTPUTS)
    assert made.value(6, STATE)[0]["selected"] == 3


def test_what_nobody_asked_for_is_not_kept() -> None:
    made = answer()
    made.take(0, MARKS, OUTPUTS)
    assert made.value(3, STATE) == ({"selected": 3, "state": {"n": 7}}, 0)


@pytest.mark.parametrize(
    ("first", "marks", "outputs"),
    [(0, MARKS, OUTPUTS[:-1]), (0, MARKS, b""), (0, MARKS + b"\1", OUTPUTS + bytes(8)), (1, MARKS, OUTPUTS)],
)
def test_sizes_that_do_not_fit_are_refused(first: int, marks: bytes, outputs: bytes) -> None:
    with pytest.raises(ProtocolError):
        answer("mask").take(first, marks, outputs)


@pytest.mark.parametrize(
    ("selected", "state"),
    [(7, STATE), (-1, STATE), (None, STATE), ("3", STATE), (3, STATE[:3]), (3, STATE + b"\0"), (3, "text"), (3, None)],
)
def test_a_count_or_a_state_that_cannot_be_is_refused(selected: Any, state: Any) -> None:
    with pytest.raises(ProtocolError):
        answer().value(selected, state)


@pytest.mark.parametrize("part", PARTS)
def test_a_value_beyond_the_limit_is_refused_and_its_outputs_are_not_gathered(part: str) -> None:
    value, size = whole(part, 1 << 20).value(3, STATE)
    del value[part]
    fits = len(pack(value)) + size
    assert whole(part, fits).value(3, STATE)[1] == size
    with pytest.raises(OutputLimitExceeded):
        whole(part, fits - 1).value(3, STATE)
    assert sum(map(len, whole("outputs", 23)._outputs)) == 0


def test_a_task_is_refused_before_anything_is_made_for_it() -> None:
    plain = parse_program("int on_record(struct record *r, struct state *s) { return 1; }", RECORDS.dtype)
    inputs = RecordInputs.of({"records": RECORDS, "return": "outputs"}, SOURCE)
    with pytest.raises(InvalidTask, match="no outputs"):
        check_task(plain, inputs, 1 << 20, 1 << 20)
    mask = RecordInputs.of({"records": RECORDS, "return": "mask"}, SOURCE)
    with pytest.raises(OutputLimitExceeded, match="the mask"):
        check_task(PROGRAM, mask, 1 << 20, 5)
