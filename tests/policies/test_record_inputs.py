"""The inputs of a record task: arrays or bytes, and what is to come back."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import GuestSyntaxError, InvalidTask
from runvisor.policies.record_inputs import RecordInputs, read_dtype
from runvisor.policies.values import pack, unpack

ENTRY = "int on_record(struct record *r, struct state *s) { return 1; }"
WRITTEN = f"struct at {{ u8 x; u16 y; }}; struct record {{ u8 id; struct at places[2]; u64 n; }};\n{ENTRY}"


def inputs(**given: Any) -> RecordInputs:
    """Read inputs as they come over the wire."""
    return RecordInputs.of(unpack(pack(given)), WRITTEN)


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype("<u4"),
        np.dtype("?"),
        np.dtype("<M8[ns]"),
        np.dtype([("id", "<u4"), ("tag", "S3"), ("xs", "<i2", (3,)), ("grid", "<f4", (2, 2))]),
        np.dtype([("id", "u1"), ("value", "<u8"), ("last", "u1")], align=True),
        np.dtype([("id", "u1"), ("at", [("x", "<i2"), ("when", "<m8[s]")], (2,))]),
    ],
)
def test_a_dtype_comes_through_as_numpy_describes_it(dtype: np.dtype[Any]) -> None:
    records = np.zeros(3, dtype)
    described = dtype.descr if dtype.names else dtype.str
    made = inputs(records=records.tobytes(), dtype=described).records
    assert made.dtype == dtype
    assert len(made) == 3


def test_bytes_without_a_dtype_are_of_the_programs_own_struct() -> None:
    made = inputs(records=bytes(48)).records
    assert (len(made), made.dtype.names) == (2, ("id", "places", "n"))


def test_bytes_of_a_program_without_a_struct_need_a_dtype() -> None:
    with pytest.raises(InvalidTask, match="write struct record"):
        RecordInputs.of({"records": b"1234"}, ENTRY)
    with pytest.raises(GuestSyntaxError):
        RecordInputs.of({"records": b"1234"}, "struct record {")


def test_rows_as_json_has_them_are_of_the_dtype_that_is_given_or_declared() -> None:
    rows = inputs(records=[[1, [[2, 3], [4, 5]], 6]]).records
    assert (rows["id"].tolist(), rows["n"].tolist()) == ([1], [6])
    assert (rows["places"]["x"].tolist(), rows["places"]["y"].tolist()) == ([[2, 4]], [[3, 5]])
    grid = inputs(records=[[[[1, 2], [3, 4]]]], dtype=[("xs", "<i8", (2, 2))]).records
    assert grid["xs"].tolist() == [[[1, 2], [3, 4]]]
    assert inputs(records=[1, 2, 300], dtype="<u2").records.tolist() == [1, 2, 300]
    assert inputs(records=[["ab", [1, 2]]], dtype=[("t", "S2"), ("xs", "<i8", 2)]).records["xs"].tolist() == [[1, 2]]
    assert len(inputs(records=[]).records) == 0


@pytest.mark.parametrize(
    ("rows", "dtype", "number"),
    [
        ([1, -1], "<u4", 1),
        ([1, 300], "u1", 1),
        ([1, 2.5], "u1", 1),
        ([[[1, 2.5]]], [("xs", "<u4", 2)], 0),
        ([[1]], "<u4", 0),
        ([[1, 2], [3]], [("a", "<u4"), ("b", "<u4")], 1),
        ([5], [("a", "<u4")], 0),
        (["x"], "<f8", 0),
        ([None], "<u4", 0),
        ([[[1, 2, 3]]], [("xs", "<u4", 2)], 0),
        ([[5]], [("xs", "<u4", 2)], 0),
    ],
)
def test_a_row_that_is_none_is_refused_by_its_number(rows: Any, dtype: Any, number: int) -> None:
    with pytest.raises(InvalidTask) as caught:
        inputs(records=rows, dtype=dtype)
    assert caught.value.where == f"inputs['records'][{number}]"


def test_a_few_rows_cannot_stand_for_much_memory() -> None:
    with pytest.raises(InvalidTask, match="too many"):
        inputs(records=[[""]] * 65, dtype=[("text", f"S{1 << 20}")])


def test_bytes_that_end_within_a_record_say_by_how_much() -> None:
    with pytest.raises(InvalidTask, match="11 bytes are not whole records of 4: 3 are left"):
        inputs(records=bytes(11), dtype="<u4")


def test_parts_are_named_once_each_and_alone_or_in_a_list() -> None:
    records = np.zeros(1)
    assert inputs(records=records).parts == ()
    assert inputs(records=records, **{"return": "mask"}).parts == ("mask",)
    assert inputs(records=records, **{"return": ["records", "mask", "mask"]}).parts == ("mask", "records")
    assert not inputs(records=records, **{"return": []}).collects


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"return": "all"}, "inputs['return']"),
        ({"return": 5}, "inputs['return']"),
        ({"return": [["mask"]]}, "inputs['return']"),
        ({"return": {"mask": 1}}, "inputs['return']"),
        ({"dtype": "<u2"}, "inputs['records']"),
        ({"records": "text"}, "inputs['records']"),
        ({"records": {"a": 1}}, "inputs['records']"),
    ],
)
def test_inputs_of_another_kind_are_refused(given: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        inputs(**{"records": np.zeros(1, "<u4"), **given})
    assert caught.value.where == where


@pytest.mark.parametrize(
    "dtype",
    [
        "",
        "O",
        "<U4",
        "|V8",
        "u4,u4",
        "(2,)u4",
        "float",
        "<u3",
        "S0",
        "S99999999999",
        5,
        [],
        [5],
        ["u4"],
        [("id",)],
        [("id", "<u4", 0)],
        [("id", "<u4", -1)],
        [("id", "<u4", (1 << 23, 1 << 23))],
        [("id", "<u4", "2")],
        [("", "<u4")],
        [("id", "<u4"), ("id", "<u4")],
        [(1, "<u4")],
        [("id", "O")],
        [("id", "<u4", (2,), 3)],
        [("gap", "|V4")],
        [("", "|V4")],
        {"names": ["a"], "formats": ["<u4"]},
        [("a", [("a", [("a", [("a", [("a", [("a", [("a", [("a", [("a", [("a", "u1")])])])])])])])])])],
    ],
)
def test_what_is_no_dtype_is_refused(dtype: Any) -> None:
    with pytest.raises(InvalidTask) as caught:
        inputs(records=bytes(8), dtype=dtype)
    assert caught.value.where == "inputs['dtype']"


plain = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda x: st.lists(x, max_size=4))


@given(plain | st.lists(st.tuples(st.text(max_size=3), st.text(alphabet="<|>uifSVO0123456789", max_size=5))))
def test_any_description_is_read_or_refused(description: Any) -> None:
    with contextlib.suppress(InvalidTask):
        assert not read_dtype(description).hasobject
