"""Values against WIT types."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.policies.errors import InvalidTask
from runvisor.policies.wit.checks import check, check_arguments
from runvisor.policies.wit.schemas import tool_of
from runvisor.policies.wit.types import Function, ListOf, Option, Record, Scalar, Type
from tests.policies.wit.generated import typed, types

POINTS = Function(
    "draw", (("points", ListOf(Record((("x", Scalar("f64")),)))), ("name", Option(Scalar("string")))), None
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["ok", "tag", "value", "a"]), inner),
    max_leaves=5,
)


@given(typed)
@settings(max_examples=60)
def test_what_a_component_gives_back_may_be_given_to_it(of_type: tuple[Type, Any]) -> None:
    kind, value = of_type
    assert check(kind, value, "value") == value


@given(types, anything)
@settings(max_examples=60)
def test_whatever_is_given_is_taken_or_refused_with_its_place(kind: Type, value: Any) -> None:
    refused = None
    try:
        checked = check(kind, value, "value")
    except InvalidTask as error:
        refused = error
    if refused is not None:
        assert refused.where.startswith("value")
        assert refused.what
    elif "nan" not in repr(checked):  # which is unlike itself
        assert check(kind, checked, "value") == checked


@given(types)
@settings(max_examples=60)
def test_every_type_has_a_schema(kind: Type) -> None:
    tool = tool_of(Function("f", (("a", kind),), kind))
    assert tool["input_schema"]["properties"]["a"] == tool["output_schema"]


@pytest.mark.parametrize(
    ("given_arguments", "where"),
    [
        ({"points": [{"x": 1}, {"x": 2}, {"x": 3}, {"x": "4"}]}, "arguments.points[3].x"),
        ([[{"x": 1}]], "arguments"),
        ({}, "arguments"),
        (5, "arguments"),
        ({"points": [], "colour": 1}, "arguments"),
    ],
)
def test_an_error_says_where(given_arguments: Any, where: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        check_arguments(POINTS, given_arguments)
    assert caught.value.where == where


def test_options_may_be_left_out_by_name_but_not_by_position() -> None:
    assert check_arguments(POINTS, {"points": []}) == [[], None]
    assert check_arguments(POINTS, [[], None]) == [[], None]
