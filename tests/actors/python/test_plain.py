"""Values that leave in a plain form, and those that do not."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.actors.python.plain import packed, plain
from runvisor.policies.errors import UnserializableValue
from runvisor.policies.values import pack, unpack

pd = pytest.importorskip("pandas")


def left(value: object) -> object:
    return unpack(packed(value))


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (range(3), [0, 1, 2]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.items(), [["a", 1]]),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC), "2026-01-02T03:04:00+00:00"),
        (datetime.time(3, 4), "03:04:00"),
        (datetime.timedelta(minutes=1, milliseconds=500), 60.5),
        ({datetime.date(2026, 1, 2): 1}, {"2026-01-02": 1}),
        (__import__("decimal").Decimal("1.10"), "1.10"),
        (__import__("fractions").Fraction(1, 3), "1/3"),
        (__import__("uuid").UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (__import__("pathlib").Path("/tmp/x"), "/tmp/x"),
        (__import__("enum").Enum("Colour", {"RED": "red"}).RED, "red"),
        (__import__("collections").Counter("aab"), {"a": 2, "b": 1}),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (np.datetime64("NaT"), None),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.array([1, "a", None], dtype=object), [1, "a", None]),
        (pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
        (pd.NaT, None),
        (pd.NA, None),
        (pd.Timedelta("1h"), 3600.0),
        (pd.Period("2026-01", "M"), "2026-01"),
        (pd.Index([1, 2]), [1, 2]),
        (pd.Categorical(["a", "b"]), ["a", "b"]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Series([1, 2], index=["x", "y"]), {"index": ["x", "y"], "value": [1, 2]}),
        (pd.Series(["a", "a", "b"], name="n").value_counts(), {"n": ["a", "b"], "count": [2, 1]}),
        (pd.DataFrame({"a": [1, 2]}), {"a": [1, 2]}),
        (pd.DataFrame({"a": [1, 2]}, index=["x", "y"]), {"index": ["x", "y"], "a": [1, 2]}),
        (pd.DataFrame({"a": [1, 2, 3]})[1:], {"index": [1, 2], "a": [2, 3]}),
        (pd.DataFrame({"a": ["x", None], "b": [True, False]}), {"a": ["x", None], "b": [True, False]}),
        (pd.DataFrame({"t": pd.to_datetime(["2026-01-02", None])}), {"t": ["2026-01-02T00:00:00", None]}),
        (pd.DataFrame({0: [1], ("a", "b"): [2]}), {"0": [1], "('a', 'b')": [2]}),
        ({"table": pd.DataFrame({"a": [1]})}, {"table": {"a": [1]}}),
        (
            pd.DataFrame({"k": ["x", "x"], "l": [1, 2], "v": [3, 4]}).groupby(["k", "l"]).sum(),
            {"k": ["x", "x"], "l": [1, 2], "v": [3, 4]},
        ),
    ],
)
def test_each_of_these_has_one_plain_form(value: object, form: object) -> None:
    assert left(value) == form


def test_a_missing_number_stays_nan_in_a_column_of_floats() -> None:
    column = left(pd.DataFrame({"x": [1.5, None]}))
    assert isinstance(column, dict)
    assert column["x"][0] == 1.5
    assert math.isnan(column["x"][1])


@dataclass
class Point:
    x: int
    tags: set[str]


def test_a_dataclass_leaves_as_its_fields() -> None:
    assert left([Point(1, {"a"})]) == [{"x": 1, "tags": ["a"]}]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "object"),
        (lambda: 1, "function"),
        ((n for n in "ab"), "generator"),
        (1j, "complex"),
        ({(1, 2): 3}, "tuple"),
        (np.ma.masked_array([1], [True]), "masked"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "called 'a'"),
    ],
)
def test_what_has_none_is_refused_by_name(value: object, said: str) -> None:
    with pytest.raises(UnserializableValue, match=said):
        packed(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[object] = [{1}]
    loop.append(loop)
    with pytest.raises(UnserializableValue):
        packed(loop)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@settings(max_examples=50)
@given(_values)
def test_what_can_be_packed_as_it_is_keeps_its_form(value: object) -> None:
    try:
        as_it_is = pack(value)
    except UnserializableValue:  # a lone surrogate
        return
    assert unpack(pack(plain(value))) == unpack(as_it_is)
