from __future__ import annotations

import json
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.actors.wasm.cpython.messages import json_text


class Level(IntEnum):
    LOW = 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_what_json_can_say_comes_back_as_it_was(value: Any) -> None:
    text = json_text(value)
    assert text is not None
    assert json.loads(text) == value


@pytest.mark.parametrize("value", [(1,), {1: 2}, b"x", {"a": {None: 1}}, [Level.LOW], {1}, object()])
def test_what_json_cannot_say_exactly_is_refused(value: Any) -> None:
    assert json_text(value) is None
    assert json_text([value]) is None


def test_deep_nesting_is_refused() -> None:
    value: list[Any] = []
    for _ in range(150):
        value = [value]
    assert json_text(value) is None


def test_what_holds_itself_is_refused_at_once() -> None:
    value: list[Any] = []
    value += [{"a": value, "b": value}] * 3
    assert json_text(value) is None


def test_integers_of_thousands_of_digits_are_refused() -> None:
    assert json_text([10**5000]) is None
