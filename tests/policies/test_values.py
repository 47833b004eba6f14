"""Values that cross a sandbox boundary."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runvisor.policies.errors import ProtocolError, UnserializableValue
from runvisor.policies.values import pack, to_json, unpack

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**4096), 2**4096)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
keys = st.text() | st.integers()
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=30
)
dtypes = st.sampled_from(
    ["?", "i1", "<u2", ">i4", "<i8", "<f2", "<f4", ">f8", "<c8", "<c16", "S3", "<U5", "<M8[ns]", "<m8[us]", "<M8[25D]"]
)


@given(values)
@example(2**64)
@example(-(2**63) - 1)
@example({2**70: {-(2**70): [2**70]}})
@example({"": {0: b""}})
def test_every_plain_value_comes_back_equal(value: Any) -> None:
    assert unpack(pack(value)) == value


@given(st.lists(values, max_size=3).map(tuple))
def test_a_tuple_arrives_as_a_list(value: tuple[Any, ...]) -> None:
    assert unpack(pack(value)) == list(value)


def test_not_a_number_stays_not_a_number() -> None:
    assert math.isnan(unpack(pack([float("nan")]))[0])
    assert math.copysign(1, unpack(pack(-0.0))) == -1


@given(dtypes, st.lists(st.integers(0, 4), max_size=3), st.randoms(use_true_random=False))
def test_arrays_keep_dtype_shape_and_every_byte(dtype: str, shape: list[int], chance: Any) -> None:
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    raw = bytes(size) if kind.kind in "SU?" else chance.randbytes(size)
    array = np.frombuffer(raw, kind).reshape(shape)
    back = unpack(pack(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(10)[::2],
        np.arange(12).reshape(3, 4)[:, ::-1],
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros(()),
        np.zeros((0, 3)),
        np.broadcast_to(np.arange(3), (2, 3)),
    ],
    ids=["strided", "reversed", "fortran", "no dimension", "empty", "broadcast"],
)
def test_arrays_of_any_layout_in_memory_cross(array: np.ndarray[Any, Any]) -> None:
    back = unpack(pack(array))
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)


def test_structured_arrays_keep_padding_nesting_and_sub_arrays() -> None:
    inner = np.dtype([("x", "<f4"), ("y", "<f4", (2, 2))])
    dtype = np.dtype([("flag", "u1"), ("at", "<i8"), ("p", inner), ("tag", "S3")], align=True)
    array = np.zeros(2, dtype)
    array["at"] = (1, -2)
    array["p"]["y"][1] = [[1, 2], [3, 4]]
    back = unpack(pack({"records": array}))["records"]
    assert back.dtype == dtype
    assert (back == array).all()


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [
        (np.int8(-3), -3),
        (np.uint64(2**63), 2**63),
        (np.float16(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.longdouble(1.5), 1.5),
        (np.bool_(True), True),
        (np.str_("é"), "é"),
    ],
)
def test_numpy_scalars_arrive_as_plain_numbers_and_text_also_as_keys(scalar: Any, plain: Any) -> None:
    assert unpack(pack([scalar])) == [plain]
    assert unpack(pack({scalar: 2**80})) == {plain: 2**80}
    assert type(unpack(pack(scalar))) is type(plain)


def test_an_array_arrives_read_only_because_it_shares_the_bytes() -> None:
    back = unpack(pack(np.arange(3)))
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1


@pytest.mark.parametrize(
    ("value", "where", "kind"),
    [
        (len, "value", "builtin_function_or_method"),
        ({"a": [1, {2, 3}]}, "value['a'][1]", "set"),
        ([object()], "value[0]", "object"),
        ({(1, 2): 3}, "value", "dict key of type tuple"),
        ({"a": {(1,): 1}}, "value['a']", "dict key of type tuple"),
        ([1 + 2j], "value[0]", "complex"),
        (np.array([object()]), "value", "numpy array of Python objects"),
        ({"m": np.ma.array([1, 2], mask=[False, True])}, "value['m']", "masked array"),
        ([np.zeros(2, [("o", "O")])], "value[0]", "numpy array of Python objects"),
        pytest.param(1 << (1 << 20), "value", "integer of", id="huge integer"),
        (["ok", "\ud800"], "value[1]", "lone surrogates"),
        ({"\ud800": 1}, "value", "lone surrogates"),
    ],
)
def test_what_may_not_cross_is_named_with_its_place(value: Any, where: str, kind: str) -> None:
    with pytest.raises(UnserializableValue) as caught:
        pack(value)
    assert kind in caught.value.what
    assert caught.value.where.startswith(where)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_is_bounded_on_both_sides() -> None:
    assert unpack(pack(nested(200))) == nested(200)
    assert to_json(nested(200)) == nested(200)
    with pytest.raises(UnserializableValue, match="deeper than 200"):
        pack(nested(201))
    with pytest.raises(ProtocolError, match="deeper than 200"):
        unpack(msgpack.packb(nested(201)))


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnserializableValue, match="nested deeper"):
        pack(loop)


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_hostile_bytes_raise_protocol_error_and_nothing_else(data: bytes) -> None:
    try:
        value = unpack(data)
    except ProtocolError:
        return
    assert unpack(pack(value)) == value or value != value or "nan" in repr(value)


@given(st.integers(-128, 127), st.binary(max_size=60), st.booleans())
@example(-1, bytes(4), False)
@example(-1, bytes(3), False)
@example(2, b"", True)
@settings(max_examples=300)
def test_hostile_extensions_raise_protocol_error_and_nothing_else(code: int, data: bytes, as_key: bool) -> None:
    hostile = msgpack.ExtType(code, data) if code >= 0 else None
    packed = msgpack.packb(hostile) if hostile else b"\xc7" + bytes([len(data), code & 0xFF]) + data
    packed = b"\x81" + packed + b"\xc0" if as_key else packed
    try:
        value = unpack(packed)
    except ProtocolError:
        return
    assert isinstance(value, int | float | dict | np.ndarray)


HOSTILE_ARRAYS: list[Any] = [
    ["O", [1], bytes(8)],
    ["|O8", [1], bytes(8)],
    ["<f8", [2], bytes(8)],
    ["<f8", [-1], bytes(8)],
    ["<f8", [1] * 40, bytes(8)],
    ["<f8", [2**62, 2**62, 0], b""],
    ["<f8", ["x"], bytes(8)],
    ["S0", [1], b""],
    ["f8,f8", [1], bytes(16)],
    ["(1000000000,1000000000)i4", [1], b""],
    ["<f8", 3, bytes(8)],
    [[["a", "O"]], [1], bytes(8)],
    [{"names": ["a"], "formats": ["O"], "offsets": [0], "itemsize": 8}, [1], bytes(8)],
    [{"names": ["a"], "formats": ["<f8"], "offsets": [4], "itemsize": 8}, [1], bytes(8)],
    [{"names": ["a"], "formats": ["<f8"], "offsets": [-8], "itemsize": 8}, [1], bytes(8)],
    [{"names": [1], "formats": ["<f8"], "offsets": [0], "itemsize": 8}, [1], bytes(8)],
    [{"names": ["a"], "formats": [], "offsets": [0], "itemsize": 8}, [1], bytes(8)],
    [{"names": ["a"]}, [1], bytes(8)],
    [{"base": "<f8", "shape": [10**9, 10**9]}, [1], bytes(8)],
    [{"base": {"base": "O", "shape": [1]}, "shape": [1]}, [1], bytes(8)],
    ["<f8"],
    {},
    None,
]


@pytest.mark.parametrize("description", HOSTILE_ARRAYS, ids=range(len(HOSTILE_ARRAYS)))
def test_hostile_array_descriptions_are_refused(description: Any) -> None:
    with pytest.raises(ProtocolError):
        unpack(msgpack.packb(msgpack.ExtType(1, msgpack.packb(description))))


@given(st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=4), max_leaves=8))
def test_any_array_description_raises_protocol_error_or_gives_an_array(description: Any) -> None:
    packed = (
        msgpack.ExtType(1, msgpack.packb([description, [1], bytes(8)], default=str)) if _packs(description) else None
    )
    if packed is None:
        return
    with contextlib.suppress(ProtocolError):
        assert isinstance(unpack(msgpack.packb(packed)), np.ndarray)


def _packs(value: Any) -> bool:
    try:
        msgpack.packb(value)
    except (OverflowError, ValueError):
        return False
    return True


def test_a_packed_value_with_bytes_after_it_is_refused() -> None:
    with pytest.raises(ProtocolError):
        unpack(pack(1) + b"\x00")
    with pytest.raises(ProtocolError):
        unpack(b"")


def test_decoding_never_unpickles() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it ran",))

    import pickle

    with pytest.raises(ProtocolError):
        unpack(pickle.dumps(Bomb()))


@given(values)
@example(10**6000)
@example({"nan": float("nan"), 1: float("inf")})
def test_everything_that_crosses_has_a_json_form(value: Any) -> None:
    text = json.dumps(to_json(unpack(pack(value))), allow_nan=False)
    assert json.loads(text) is not ...


@pytest.mark.parametrize(
    ("value", "document"),
    [
        (np.arange(3), [0, 1, 2]),
        (np.array([1 + 2j]), ["(1+2j)"]),
        (np.array(["2024-01-01"], "M8[D]"), ["2024-01-01"]),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), "nan"),
        (np.array(["NaT"], "M8[ns]").astype("M8[D]"), [None]),
        (memoryview(b"hi"), {"$bytes": "aGk="}),
        pytest.param(2**20_000, hex(2**20_000), id="huge integer"),
        ((1, {2: 3}), [1, {"2": 3}]),
    ],
)
def test_json_forms(value: Any, document: Any) -> None:
    assert to_json(value) == document
    json.dumps(to_json(value), allow_nan=False)
