"""Values whose large parts travel beside their bytes."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies import values as module
from runvisor.policies.errors import ProtocolError, UnserializableValue
from runvisor.policies.values import LARGE_BYTES, MAX_BUFFERS, Packed, pack, unpack

blobs = st.binary(max_size=40)
nested: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | blobs,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4),
    max_leaves=25,
)


def through(value: Any, large_bytes: int = LARGE_BYTES) -> tuple[Any, list[Any]]:
    buffers: list[Any] = []
    data = pack(value, buffers, large_bytes=large_bytes)
    return unpack(data, buffers=buffers), buffers


@given(nested, st.integers(1, 40))
def test_every_value_comes_back_equal_wherever_the_line_is_drawn(value: Any, large_bytes: int) -> None:
    back, buffers = through(value, large_bytes)
    assert back == value
    assert len(buffers) <= MAX_BUFFERS
    assert all(memory.nbytes >= large_bytes for memory in buffers)


@given(
    st.sampled_from(["?", "i1", ">i4", "<f8", "<c16", "S3", "<U5", "<M8[ns]"]),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from(["C", "F"]),
)
def test_arrays_keep_dtype_shape_order_and_every_byte(dtype: str, shape: list[int], order: Any) -> None:
    array = np.zeros(shape, dtype, order=order)
    array.reshape(-1).view("u1")[: array.nbytes // 2] = 1
    back, buffers = through({"a": array}, 1)
    assert (back["a"].dtype, back["a"].shape) == (array.dtype, array.shape)
    assert back["a"].tobytes() == array.tobytes()
    assert len(buffers) == bool(array.nbytes)
    if array.nbytes:
        assert back["a"].flags.f_contiguous == array.flags.f_contiguous
        assert not back["a"].flags.writeable


def test_memory_in_order_is_put_aside_without_a_copy_and_read_without_one() -> None:
    for array in (np.ones((300, 400)), np.asfortranarray(np.random.default_rng(1).random((300, 400)))):
        back, buffers = through(array)
        assert np.shares_memory(np.frombuffer(buffers[0], "u1"), array)
        assert np.shares_memory(back, array)


def test_a_slice_is_copied_into_order() -> None:
    array = np.arange(100_000).reshape(100, 1000)[::2, ::3]
    np.testing.assert_array_equal(through(array)[0], array)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_large_bytes_of_each_kind_arrive_as_bytes(kind: Any) -> None:
    back, buffers = through([kind(b"x" * LARGE_BYTES), b"small"])
    assert back == [b"x" * LARGE_BYTES, b"small"]
    assert len(buffers) == 1


def test_what_is_small_stays_inside() -> None:
    assert through({"a": b"x" * (LARGE_BYTES - 1), "b": np.arange(10)})[1] == []


def test_more_large_parts_than_buffers_stay_inside() -> None:
    value = [bytes([n]) * 100 for n in range(MAX_BUFFERS + 5)]
    back, buffers = through(value, 100)
    assert back == value
    assert len(buffers) == MAX_BUFFERS


def test_a_value_that_needs_the_slow_walk_puts_its_parts_aside_once() -> None:
    value = {"big": 2**80, "blob": b"x" * 100, "more": [2**90, b"y" * 100]}
    back, buffers = through(value, 100)
    assert back == value
    assert len(buffers) == 2


def test_what_may_not_cross_is_named_with_its_place_also_beside_buffers() -> None:
    buffers: list[Any] = []
    with pytest.raises(UnserializableValue) as caught:
        pack({"blob": b"x" * LARGE_BYTES, "f": [print]}, buffers)
    assert caught.value.where == "value['f'][0]"


def test_earlier_buffers_are_left_where_they_are() -> None:
    buffers: list[Any] = [memoryview(b"first")]
    data = pack([2**80, b"x" * 100], buffers, large_bytes=100)
    assert (len(buffers), bytes(buffers[0])) == (2, b"first")
    assert unpack(data, buffers=buffers) == [2**80, b"x" * 100]


# Values packed before


def test_a_packed_value_is_a_part_of_another_with_its_buffers_or_without() -> None:
    inner: list[Any] = []
    packed = Packed(pack({"t": b"x" * 100, "n": 2**80}, inner, large_bytes=50), inner)
    whole = [b"y" * 100, packed, {"again": packed}]
    plain = [b"y" * 100, packed.value(), {"again": packed.value()}]
    assert through(whole, 50)[0] == plain
    assert unpack(pack(whole)) == plain


def test_a_packed_value_that_finds_no_room_among_the_buffers_is_copied_inside() -> None:
    parts = [b"%3d" % n * 10 for n in range(MAX_BUFFERS)]
    inner: list[Any] = []
    packed = Packed(pack(parts, inner, large_bytes=10), inner)
    back, buffers = through([b"z" * 100, packed], 50)
    assert back == [b"z" * 100, parts]
    assert len(buffers) == 1


# Hostile bytes


def reference(*fields: Any) -> bytes:
    data = msgpack.packb(msgpack.ExtType(3, msgpack.packb(list(fields))))
    assert isinstance(data, bytes)
    return data


@pytest.mark.parametrize(
    "data",
    [
        reference(0, None, [], "C"),
        reference(-1, None, [], "C"),
        reference(True, None, [], "C")[:-3],
        reference(0, "<f8", [3], "C"),
        reference(0, "<f8", [-1], "C"),
        reference(0, "O", [1], "C"),
        reference(0, "<f8", "x", "C"),
        reference("0", None, [], "C"),
        reference(0),
        msgpack.packb(msgpack.ExtType(3, b"\xc1")),
        msgpack.packb(msgpack.ExtType(4, msgpack.packb([0, 99, b"\xc0"]))),
        msgpack.packb(msgpack.ExtType(4, msgpack.packb([5, 1, b"\xc0"]))),
        msgpack.packb(msgpack.ExtType(4, msgpack.packb([0, 0, b"\xc1"]))),
    ],
)
def test_references_that_do_not_fit_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(data)
    if data != reference(0, None, [], "C"):
        with pytest.raises(ProtocolError):
            unpack(data, buffers=[memoryview(b"12345678")])


def test_a_buffer_serves_one_reference_so_that_small_bytes_cannot_ask_for_many_copies() -> None:
    twice = msgpack.packb([msgpack.ExtType(3, msgpack.packb([0, None, [], "C"]))] * 2)
    with pytest.raises(ProtocolError, match="twice"):
        unpack(twice, buffers=[b"x"])


def test_packed_values_inside_each_other_are_bounded() -> None:
    assert unpack(inside_each_other(module._MAX_PACKED_DEPTH)) is None
    for depth in (module._MAX_PACKED_DEPTH + 1, 5000):
        with pytest.raises(ProtocolError):
            unpack(inside_each_other(depth))


def inside_each_other(depth: int) -> bytes:
    data = b"\xc0"
    for _ in range(depth):
        data = msgpack.packb(msgpack.ExtType(4, msgpack.packb([0, 0, data])))
    return data


@given(st.sampled_from([3, 4]), st.binary(max_size=60), st.lists(blobs, max_size=3))
def test_hostile_references_raise_protocol_error_and_nothing_else(code: int, data: bytes, buffers: list[bytes]) -> None:
    with contextlib.suppress(ProtocolError):
        unpack(msgpack.packb(msgpack.ExtType(code, data)), buffers=buffers)


@given(
    st.sampled_from([3, 4]),
    st.lists(st.none() | st.integers(-3, 5) | st.text(max_size=4) | blobs | st.lists(st.integers(-2, 9)), max_size=5),
    st.lists(blobs, max_size=3),
)
def test_well_formed_nonsense_raises_protocol_error_and_nothing_else(
    code: int, fields: list[Any], buffers: list[bytes]
) -> None:
    with contextlib.suppress(ProtocolError):
        unpack(msgpack.packb(msgpack.ExtType(code, msgpack.packb(fields))), buffers=buffers)
