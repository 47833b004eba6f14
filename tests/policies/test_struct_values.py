"""Fields of a struct as plain values, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.dtypes import dtype_of
from runvisor.policies.errors import InvalidTask
from runvisor.policies.struct_values import PLAIN_ELEMENTS, StructValues
from runvisor.policies.structs import Struct, lay_out
from runvisor.policies.values import pack

PAIR = lay_out("pair", [("u8", "key", None), ("u32", "count", None)])
STATE = StructValues(
    lay_out("state", [("s16", "low", None), (PAIR, "one", None), (PAIR, "pairs", 3), ("u16", "many", 2000)])
)

integers = st.sampled_from(["u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64"])
counts = st.none() | st.integers(1, 3)


@st.composite
def structs(draw: st.DrawFn, depth: int = 0) -> Struct:
    kinds = integers if depth == 2 else integers | integers | structs(depth + 1)
    fields = draw(st.lists(st.tuples(kinds, counts), min_size=1, max_size=3))
    if depth == 0 and draw(st.booleans()):
        fields.append((draw(integers), PLAIN_ELEMENTS + 1))
    return lay_out(f"at{depth}", [(kind, f"f{index}", count) for index, (kind, count) in enumerate(fields)])


@given(structs(), st.randoms(use_true_random=False))
def test_what_is_decoded_encodes_to_the_same_bytes_but_for_the_padding(layout: Struct, random: Any) -> None:
    values = StructValues(layout)
    fields = values.decode(random.randbytes(layout.size))
    again = values.encode(fields, "state")
    assert pack(values.decode(again)) == pack(fields)
    assert values.encode(values.decode(again), "state") == again


@given(structs(), st.randoms(use_true_random=False))
def test_a_value_is_as_long_on_the_wire_as_its_bounds_say(layout: Struct, random: Any) -> None:
    values = StructValues(layout)
    for data in (bytes(layout.size), random.randbytes(layout.size), b"\xff" * layout.size):
        assert values.narrowest_bytes <= len(pack(values.decode(data))) <= values.widest_bytes


@given(structs())
def test_numpy_sees_the_layout_that_c_has(layout: Struct) -> None:
    dtype = dtype_of(layout)
    assert dtype.itemsize == layout.size
    assert dtype.fields is not None
    assert {name: entry[1] for name, entry in dtype.fields.items()} == {m.name: m.offset for m in layout.members}
    assert [dtype[m.name].itemsize for m in layout.members] == [m.size for m in layout.members]


def test_small_things_are_plain_and_large_or_structured_ones_are_arrays() -> None:
    fields = STATE.decode(bytes(STATE.struct.size))
    assert (fields["low"], fields["one"]) == (0, {"key": 0, "count": 0})
    assert fields["pairs"].dtype == dtype_of(PAIR)
    assert (fields["many"].dtype, len(fields["many"])) == (np.dtype("<u2"), 2000)
    assert StructValues(lay_out("s", [("u8", "xs", PLAIN_ELEMENTS)])).decode(bytes(PLAIN_ELEMENTS)) == {
        "xs": [0] * PLAIN_ELEMENTS
    }


def test_the_padding_of_what_is_decoded_is_zero() -> None:
    pairs = STATE.decode(b"\xff" * STATE.struct.size)["pairs"]
    assert pairs.tobytes() == b"\xff\0\0\0\xff\xff\xff\xff" * 3


def test_arrays_lists_and_tuples_stand_for_each_other() -> None:
    array = np.array([(1, 2), (3, 4), (5, 6)], dtype_of(PAIR))
    given_as = [array, [{"key": 1, "count": 2}, (3, 4), [5, 6]], array.tolist()]
    assert len({STATE.encode({"pairs": value}, "state") for value in given_as}) == 1
    many = np.arange(2000)
    assert STATE.encode({"many": many}, "state") == STATE.encode({"many": many.tolist()}, "state")


@pytest.mark.parametrize(
    ("fields", "where", "says"),
    [
        ({"none": 1}, "state['none']", "no field 'none'"),
        ({"low": 1 << 15}, "state['low']", "does not fit s16"),
        ({"low": np.array([1])}, "state['low']", "shape"),
        ({"one": 5}, "state['one']", "not the fields of struct pair"),
        ({"one": {"key": -1}}, "state['one']['key']", "does not fit u8"),
        ({"one": {"other": 1}}, "state['one']['other']", "no field 'other'"),
        ({"pairs": [(1, 2)]}, "state['pairs']", "not a list of 3 struct pair"),
        ({"pairs": [(1, 2, 3)] * 3}, "state['pairs'][0]", "not the fields"),
        ({"pairs": ["ab"] * 3}, "state['pairs'][0]", "not the fields"),
        ({"pairs": np.zeros(3, [("key", "<u8"), ("count", "<u8")])}, "state['pairs']", "is not one of struct pair"),
        ({"many": np.full(2000, 1 << 16)}, "state['many']", "does not fit u16"),
        ({"many": np.zeros(2000)}, "state['many']", "does not hold integers"),
        ({"many": np.zeros((2000, 1), "<u2")}, "state['many']", "shape"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_their_place(fields: Any, where: str, says: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        STATE.encode(fields, "state")
    assert caught.value.where == where
    assert says in caught.value.what
