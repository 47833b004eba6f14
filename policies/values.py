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
import re
import sys
from collections.abc import Iterable
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
_MAX_JSON_BITS = 10_000  # json and str refuse integers of more than 4300 digits

_CONTAINERS = (dict, list, tuple)
_LEAVES = frozenset((bool, int, float, str, bytes, type(None)))
_KEYS = (str, int, float, bytes, type(None))
_PLAIN_KEYS = frozenset((bool, *_KEYS))

# What `dtype.str` writes: byte order, kind, size, and the unit of dates.
_DTYPE = re.compile(r"[<>|][biufcSUVmM]\d{1,9}(\[\d{0,9}[A-Za-z]{1,7}\])?")


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
    packed: bytes | None
    try:
        packed = msgpack.packb(value, default=_encode)
    except (TypeError, ValueError, OverflowError, RecursionError, UnserializableValue):
        packed = None
    if packed is None or _is_ill_shaped(value):  # the slow walk serves the message, and integers beyond 64 bits
        try:
            packed = msgpack.packb(_plain(value, "value", 0), default=_encode)
        except (TypeError, ValueError, OverflowError) as error:  # larger than msgpack can say
            raise UnserializableValue(f"the value cannot leave the sandbox: {error}", "value") from None
    assert isinstance(packed, bytes)
    return packed


def unpack(data: bytes | memoryview) -> Value:
    """Decode `pack` bytes; hostile bytes give an error, never code execution.

    Arrays are views of the bytes and read-only; copy one to write to it.

    Raises:
        ProtocolError: The bytes are not one whole packed value.
    """
    try:
        value = msgpack.unpackb(data, ext_hook=_decode, strict_map_key=False, raw=False, timestamp=1)
    except ProtocolError:
        raise
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"not a packed value: {error}") from None
    if _is_ill_shaped(value):
        raise ProtocolError(f"a packed value is nested deeper than {_MAX_DEPTH} levels, or has strange keys")
    return value


def to_json(value: Value) -> Value:
    """Return the value as JSON types: arrays as lists, bytes as ``{"$bytes": base64}``.

    What JSON cannot say becomes text: non-finite floats, complex numbers and
    dates as Python writes them, integers of thousands of digits in hexadecimal.

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
        return repr(float(value))
    if isinstance(value, int) and value.bit_length() > _MAX_JSON_BITS:
        return hex(value)
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def is_number(value: object) -> bool:
    """Say whether a value from a peer is a finite number.

    Example:
        >>> is_number(1), is_number(float("nan")), is_number(True)
        (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _is_ill_shaped(value: Value) -> bool:
    """Say whether a value is nested too deep, or holds dict keys of other than plain types.

    msgpack packs a tuple as a key, which nobody can unpack; it has no hook for
    keys. Breadth first and by sets of types, so that flat data costs one pass in C.
    """
    level: list[Any] = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(_MAX_DEPTH + 1):
        if not level:
            return False
        below: list[Any] = []
        for container in level:
            items = container
            if isinstance(container, dict):
                if not _PLAIN_KEYS.issuperset(map(type, container)) and not _are_keys(container):
                    return True
                items = container.values()
            if not set(map(type, items)) <= _LEAVES:
                below += [item for item in items if isinstance(item, _CONTAINERS)]
        level = below
    return True


def _are_keys(keys: Iterable[object]) -> bool:
    """Also numpy's scalars, as counting with numpy yields them."""
    numpy = sys.modules.get("numpy")
    kinds = _KEYS if numpy is None else (*_KEYS, numpy.generic)
    return all(isinstance(key, kinds) for key in keys)


def _encode(item: Any) -> object:
    """Encode what msgpack itself cannot: numpy values (called by msgpack)."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(item, numpy.ndarray):
        return _encode_array(numpy, item)
    if numpy is not None and isinstance(item, numpy.generic) and item.dtype.kind in "biufSU":
        return float(item) if item.dtype.kind == "f" else item.item()  # a longdouble's item() is a longdouble
    raise UnserializableValue(
        f"a value of type {type(item).__name__} cannot leave the sandbox",
        "",
        "return None, numbers, text, bytes, lists, dicts or numpy arrays",
    )


def _encode_array(numpy: Any, array: np.ndarray[Any, Any]) -> msgpack.ExtType:
    if array.dtype.hasobject:
        raise UnserializableValue(
            "a numpy array of Python objects cannot leave the sandbox",
            "",
            "convert it to a numeric or string dtype, or to a list",
        )
    if getattr(type(array), "mask", None) is not None:
        raise UnserializableValue(
            "a masked array cannot leave the sandbox", "", "fill it, or return its data and its mask"
        )
    shape, kind = list(array.shape), _describe(array.dtype)
    flat = numpy.ascontiguousarray(array).reshape(-1)  # copies only what is not contiguous already
    body = msgpack.packb([kind, shape, flat.view("u1").data if array.size else b""])
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
        dtype = _dtype_of(description)
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


def _describe(dtype: np.dtype[Any]) -> Any:
    """Say in plain data what a dtype is; padding and sub-arrays included."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": _describe(base), "shape": list(shape)}
    if dtype.fields is not None and dtype.names is not None:
        table: Any = dtype.fields
        fields = [table[name] for name in dtype.names]
        return {
            "names": list(dtype.names),
            "formats": [_describe(field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
        }
    if not dtype.itemsize or not _DTYPE.fullmatch(dtype.str):
        raise UnserializableValue(
            f"a numpy array of dtype {dtype} cannot leave the sandbox", "", "convert it to a numeric or string dtype"
        )
    return dtype.str


def _dtype_of(description: Any) -> np.dtype[Any]:
    """Undo `_describe`, and nothing else that numpy would take for a dtype."""
    import numpy as np

    if isinstance(description, str) and _DTYPE.fullmatch(description):
        return np.dtype(description)
    if isinstance(description, dict) and "base" in description:
        return np.dtype((_dtype_of(description["base"]), tuple(map(int, description["shape"]))))
    if not isinstance(description, dict) or not all(isinstance(name, str) for name in description["names"]):
        raise ProtocolError("refused array dtype")
    return np.dtype(
        {
            "names": description["names"],
            "formats": [_dtype_of(format_) for format_ in description["formats"]],
            "offsets": description["offsets"],
            "itemsize": description["itemsize"],
        }
    )


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
    if isinstance(value, bool) or value is None or isinstance(value, float | str | bytes | bytearray | memoryview):
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
            if not _are_keys((key,)):
                raise UnserializableValue(
                    f"a dict key of type {type(key).__name__} cannot leave the sandbox",
                    where,
                    "use text or integers as keys",
                )
            copy[_plain(key, f"{where}[{key!r}]", depth + 1)] = _plain(item, f"{where}[{key!r}]", depth + 1)
        return copy
    try:
        return _encode(value)
    except UnserializableValue as error:
        raise UnserializableValue(error.what, where, error.remedy) from None
