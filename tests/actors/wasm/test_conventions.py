"""What of a module is called, and how numbers go in and come out."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.wasm.conventions import Entry, choose_entry, stdin_of
from runvisor.policies.errors import InvalidTask, ProtocolError

Functions = dict[str, tuple[list[str], list[str]]]
NOTHING: tuple[list[str], list[str]] = ([], [])
ADD = (["i32", "i32"], ["i32"])


def function(*parameters: str, results: tuple[str, ...] = ()) -> Entry:
    return Entry("f", parameters, results, is_command=False, uses_wasi=False)


@pytest.mark.parametrize(
    ("functions", "uses_wasi", "name", "is_command"),
    [
        ({"_start": NOTHING, "main": ADD}, True, "_start", True),
        ({"main": NOTHING}, True, "main", True),
        ({"main": ([], ["i32"])}, True, "main", True),
        ({"main": ([], ["i32"])}, False, "main", False),
        ({"main": ([], ["f64"])}, True, "main", False),
        ({"main": ADD}, True, "main", False),
        ({"run": ADD, "main": ADD}, False, "main", False),
        ({"run": ADD, "other": ADD}, False, "run", False),
        ({"add": ADD}, False, "add", False),
        ({"add": ADD, "_initialize": NOTHING, "__heap_base": NOTHING}, False, "add", False),
        ({"_start": (["i32"], []), "run": ADD}, True, "run", False),
    ],
)
def test_the_entry_is_chosen_in_a_fixed_order(
    functions: Functions, uses_wasi: bool, name: str, is_command: bool
) -> None:
    entry = choose_entry(functions, [], uses_wasi=uses_wasi)
    assert (entry.name, entry.is_command) == (name, is_command)


@pytest.mark.parametrize(
    ("functions", "others", "where"),
    [({}, [], "exports"), ({"a": ADD, "b": ADD}, [], "exports"), ({"a": ADD}, ["main"], "export main")],
)
def test_a_module_without_one_clear_entry_is_refused(functions: Functions, others: list[str], where: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        choose_entry(functions, others, uses_wasi=False)
    assert caught.value.where == where
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("inputs", "parameters"),
    [
        (None, ()),
        ([], ()),
        (7, ("i32",)),
        ([7], ("i64",)),
        ((7, 1.5), ("i32", "f64")),
        ({"args": [7]}, ("i32",)),
        ({"args": None}, ()),
        (np.array([1, 2]), ("i32", "i64")),
        (np.int64(3), ("i32",)),
        ([np.float32(0.5)], ("f32",)),
        ([True], ("i32",)),
    ],
)
def test_inputs_that_are_parameters(inputs: Any, parameters: tuple[str, ...]) -> None:
    assert len(function(*parameters).arguments(inputs)) == 16 * len(parameters)


@pytest.mark.parametrize(
    ("inputs", "parameters", "where"),
    [
        (None, ("i32",), "inputs"),
        ([1, 2], ("i32",), "inputs"),
        (5, (), "inputs"),
        ({"x": 1}, ("i32",), "inputs"),
        (["1"], ("i32",), "inputs[0]"),
        ([1, 1.0], ("i32", "i32"), "inputs[1]"),
        ([None], ("f64",), "inputs[0]"),
        ([[1]], ("i32",), "inputs[0]"),
        ([1 << 32], ("i32",), "inputs[0]"),
        ([-(1 << 31) - 1], ("i32",), "inputs[0]"),
        ([1 << 64], ("i64",), "inputs[0]"),
        ([1e39], ("f32",), "inputs[0]"),
        ([1 << 2000], ("f64",), "inputs[0]"),
        ([1j], ("f64",), "inputs[0]"),
    ],
)
def test_inputs_that_are_not_are_refused_with_their_place(inputs: Any, parameters: tuple[str, ...], where: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        function(*parameters).arguments(inputs)
    assert caught.value.where == where
    assert caught.value.remedy


@given(st.lists(st.integers(-(1 << 63), (1 << 64) - 1)))
def test_whole_numbers_of_64_bits_come_back_signed(numbers: list[int]) -> None:
    entry = function(*["i64"] * len(numbers), results=("i64",) * len(numbers))
    back = entry.value(entry.arguments(numbers))
    signed = [n - (1 << 64) if n >= 1 << 63 else n for n in numbers]
    assert back == (None if not signed else signed[0] if len(signed) == 1 else signed)


@given(st.floats(), st.integers(-(1 << 31), (1 << 32) - 1), st.floats(width=32))
def test_numbers_survive_the_trip(double: float, whole: int, single: float) -> None:
    kinds = ("f64", "i32", "f32")
    entry = function(*kinds, results=kinds)
    back = entry.value(entry.arguments([double, whole, single]))
    assert struct.pack("<d", back[0]) == struct.pack("<d", double) or math.isnan(double)
    assert back[1] & 0xFFFFFFFF == whole & 0xFFFFFFFF
    assert back[2] == single or math.isnan(single)


def test_results_of_another_size_are_a_breach_of_protocol() -> None:
    with pytest.raises(ProtocolError):
        function(results=("i32",)).value(b"\0" * 15)


def test_a_command_reads_json_or_nothing() -> None:
    assert stdin_of(None) == b""
    assert stdin_of({"a": [1, "é"], "b": b"x"}) == '{"a": [1, "é"], "b": {"$bytes": "eA=="}}'.encode()


def test_text_that_is_not_unicode_cannot_be_an_input() -> None:
    with pytest.raises(InvalidTask):
        stdin_of("\ud800")
