"""Depth and keys are judged alike by the walk and by the packer."""

from __future__ import annotations

from typing import Any

import pytest

from runvisor.policies import shape
from runvisor.policies.errors import ProtocolError, UnserializableValue
from runvisor.policies.values import LARGE_BYTES, pack, unpack

ROWS = [{"id": n, "tags": ["a"]} for n in range(200)]
DEEP_ENOUGH = shape.MAX_DEPTH - 3  # the rows are three containers in one another


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("inner", [1, ROWS, [2**90] * 200, {"rows": ROWS}], ids=["leaf", "rows", "integers", "dict"])
@pytest.mark.parametrize("depth", range(shape.MAX_DEPTH - 6, shape.MAX_DEPTH + 3))
def test_the_packer_and_the_walk_agree_on_depth(inner: Any, depth: int) -> None:
    value = nested(inner, depth)
    assert shape.is_too_deep(value) == shape.is_odd(value)


def test_what_is_as_deep_as_may_be_crosses_and_one_level_more_does_not() -> None:
    value = nested(ROWS, DEEP_ENOUGH)
    assert unpack(pack(value)) == value
    with pytest.raises(UnserializableValue, match="deeper than 200"):
        pack([value])


def test_deep_bytes_of_a_stranger_are_refused() -> None:
    one_more = b"\x91" * (DEEP_ENOUGH + 1) + pack(ROWS)
    with pytest.raises(ProtocolError, match="deeper than 200"):
        unpack(one_more)
    assert unpack(one_more[1:]) == nested(ROWS, DEEP_ENOUGH)


@pytest.mark.parametrize("key", [(1, 2), frozenset({1})])
def test_odd_keys_are_refused_among_many_good_ones(key: Any) -> None:
    with pytest.raises(UnserializableValue, match="dict key"):
        pack([*ROWS, {key: 1}])


class Name(str):
    """Text of a class of its own."""


def test_subclasses_and_tuples_cross_as_what_they_are_at_heart() -> None:
    value = [*ROWS, (1, (2,)), {Name("a"): Name("b")}, True, {1: {b"k": None}}]
    assert unpack(pack(value)) == [*ROWS, [1, [2]], {"a": "b"}, True, {1: {b"k": None}}]


@pytest.mark.parametrize("large", [bytes(LARGE_BYTES), bytearray(LARGE_BYTES), memoryview(bytes(LARGE_BYTES))])
def test_large_bytes_lie_beside_however_many_rows_surround_them(large: Any) -> None:
    buffers: list[Any] = []
    data = pack([ROWS, {"blob": large}], buffers)
    assert [buffer.nbytes for buffer in buffers] == [LARGE_BYTES]
    assert len(data) < LARGE_BYTES
    assert unpack(data, buffers=buffers) == [ROWS, {"blob": bytes(large)}]


def test_what_only_looks_like_large_bytes_stays_in_place() -> None:
    buffers: list[Any] = []
    texts = ["\xc6\x00" * 20_000, b"\xc6\x00\x01\x00\x00" * 13_000]
    data = pack([ROWS, *texts], buffers)
    assert buffers == []
    assert unpack(data) == [ROWS, *texts]
