"""Values that may cross a sandbox boundary, as msgpack with two extensions.

Allowed: None, bool, int of any size, float, str, bytes, list, tuple (arrives
as a list), dict with str or int keys, numpy arrays and scalars of plain
dtypes. Never pickle: decoding these bytes runs no code of the sender.

The wire format is msgpack (https://github.com/msgpack/msgpack/blob/master/spec.md)
with extension 1 for numpy arrays and 2 for integers beyond 64 bits.
"""

from __future__ import annotations

import base64
import math
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import msgpack

from runvisor.policies.errors import ProtocolError, UnserializableValue

if TYPE_CHECKING:
    import numpy as np

Value: TypeAlias = Any
"""A value that `pack` accepts. (A recursive union helps no caller's type checker.)"""

_ARRAY = 1
_BIG_INT = 2
_MAX_INT_BYTES = 1 << 16
_MAX_DEPTH = 200


def pack(value: Value) -> bytes:
    """Encode a value for the other side of a boundary.

    Args:
        value: Any value named in the module's docstring.

    Raises:
        UnserializableValue: The value, or one inside it, is of another type;
            the message names the type and the place.

    Example:
        >>> unpack(pack({"n": 2**70, "xs": (1, 2.5, None)}))
        {'n': 1180591620717411303424, 'xs': [1, 2.5, None]}
        >>> pack({"f": len})
        Traceback (most recent call last):
        ...
        runvisor.policies.errors.UnserializableValue: a value of type \
builtin_function_or_method cannot leave the sandbox (at value['f']); \
return None, numbers, text, bytes, lists, dicts or numpy arrays
    """
    try:
        packed = msgpack.packb(value, default=_encode, strict_types=False)
    except (TypeError, ValueError, OverflowError, RecursionError, UnserializableValue):
        packed = None
    if packed is None:  # the slow walk only serves the message, or integers beyond 64 bits
        packed = msgpack.packb(_plain(value, "value", 0), default=_encode)
    assert isinstance(packed, bytes)
    return packed


def unpack(data: bytes | memoryview) -> Value:
    """Decode `pack` bytes; hostile bytes give an error, never code execution.

    Raises:
        ProtocolError: The bytes are not one whole packed value.
    """
    try:
        return msgpack.unpackb(data, ext_hook=_decode, strict_map_key=False, raw=False)
    except ProtocolError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"not a packed value: {error}") from None


def to_json(value: Value) -> Value:
    """Return the value as JSON types: arrays as lists, bytes as ``{"$bytes": base64}``.

    Example:
        >>> to_json({"b": b"hi", "x": float("nan"), 1: [True]})
        {'b': {'$bytes': 'aGk='}, 'x': 'nan', '1': [True]}
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return to_json(value.tolist())
    if numpy is not None and isinstance(value, numpy.generic):
        return to_json(value.item())
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def _encode(item: Any) -> object:
    """Encode what msgpack itself cannot: numpy values (called by msgpack)."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(item, numpy.ndarray):
        return _encode_array(item)
    if numpy is not None and isinstance(item, numpy.generic) and item.dtype.kind in "biufSU":
        return item.item()
    raise UnserializableValue(
        f"a value of type {type(item).__name__} cannot leave the sandbox",
        "",
        "return None, numbers, text, bytes, lists, dicts or numpy arrays",
    )


def _encode_array(array: np.ndarray[Any, Any]) -> msgpack.ExtType:
    if array.dtype.hasobject:
        raise UnserializableValue(
            "a numpy array of Python objects cannot leave the sandbox",
            "",
            "convert it to a numeric or string dtype, or to a list",
        )
    description: Any = array.dtype.descr if array.dtype.names else array.dtype.str
    flat = array.reshape(-1, order="C")  # copies only what is not contiguous already
    body = msgpack.packb([description, list(array.shape), flat.view("u1").data if array.size else b""])
    return msgpack.ExtType(_ARRAY, body)


def _decode(code: int, data: bytes) -> object:
    if code == _BIG_INT and 0 < len(data) <= _MAX_INT_BYTES:
        return int.from_bytes(data, "little", signed=True)
    if code == _ARRAY:
        return _decode_array(data)
    raise ProtocolError(f"unknown extension {code} in a packed value")


def _decode_array(data: bytes) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        description, shape, body = msgpack.unpackb(data, raw=False)
        dtype = np.dtype(_as_descr(description))
        if dtype.hasobject or dtype.itemsize == 0:
            raise ProtocolError(f"refused array dtype {dtype}")
        sizes = [int(size) for size in shape]
        if min(sizes, default=0) < 0 or len(sizes) > 32:
            raise ProtocolError("refused array shape")
        return np.frombuffer(body, dtype).reshape(sizes)
    except ProtocolError:
        raise
    except Exception as error:  # numpy raises many types for hostile descriptions
        raise ProtocolError(f"not a packed array: {error}") from None


def _as_descr(description: object) -> Any:
    """Undo msgpack's tuple-to-list on ``dtype.descr``."""
    if isinstance(description, str):
        return description
    if not isinstance(description, list):
        raise ProtocolError("refused array dtype")
    fields: list[Any] = []
    for field in description:
        name, kind, *shape = field
        fields.append((name, _as_descr(kind), *(tuple(sizes) for sizes in shape)))
    return fields


def _plain(value: object, where: str, depth: int) -> object:
    """Copy the value with big integers encoded, or raise with the exact place."""
    if depth > _MAX_DEPTH:
        raise UnserializableValue(
            f"the value is nested deeper than {_MAX_DEPTH} levels", where[:120], "return flatter data"
        )
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UnserializableValue(
                "text with lone surrogates cannot leave the sandbox", where, "return valid Unicode, or bytes"
            ) from None
    if isinstance(value, bool) or value is None or isinstance(value, float | str | bytes | bytearray):
        return value
    if isinstance(value, int):
        if -(2**63) <= value < 2**64:
            return value
        size = value.bit_length() // 8 + 1
        if size > _MAX_INT_BYTES:
            raise UnserializableValue(f"an integer of {size} bytes is too large to return", where)
        return msgpack.ExtType(_BIG_INT, value.to_bytes(size, "little", signed=True))
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, dict):
        copy: dict[object, object] = {}
        for key, item in value.items():
            if not isinstance(key, str | int | float | bytes | type(None)):
                raise UnserializableValue(
                    f"a dict key of type {type(key).__name__} cannot leave the sandbox",
                    where,
                    "use text or integers as keys",
                )
            copy[key] = _plain(item, f"{where}[{key!r}]", depth + 1)
        return copy
    try:
        return _encode(value)
    except UnserializableValue as error:
        raise UnserializableValue(error.what, where, error.remedy) from None
