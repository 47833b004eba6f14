"""Numpy arrays in plain data: memory, shape, and a description of the dtype that no code can hide in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgpack

from runvisor.policies.errors import ProtocolError, UnserializableValue

if TYPE_CHECKING:
    import numpy as np

# What `dtype.str` writes: byte order, kind, size, and the unit of dates.
_DTYPE = re.compile(r"[<>|][biufcSUVmM]\d{1,9}(\[\d{0,9}[A-Za-z]{1,7}\])?")


def encode(numpy: Any, array: np.ndarray[Any, Any]) -> bytes:
    """Return a description of an array together with its bytes.

    Raises:
        UnserializableValue: It holds Python objects, or a mask.
    """
    flat, kind, shape, _ = take_apart(numpy, array, keep_order=False)
    packed = msgpack.packb([kind, shape, flat])
    assert isinstance(packed, bytes)
    return packed


def take_apart(
    numpy: Any, array: np.ndarray[Any, Any], *, keep_order: bool = True
) -> tuple[memoryview, Any, list[int], str]:
    """Return an array's memory, its dtype's description, its shape, and ``C`` or ``F``.

    Copies only what is not contiguous already, or not in the order wanted.

    Args:
        numpy: The module.
        array: Any array.
        keep_order: Take memory in Fortran's order as it is.

    Raises:
        UnserializableValue: It holds Python objects, or a mask.
    """
    _check(array)
    kind, shape = _describe(array.dtype), list(array.shape)
    is_fortran = keep_order and array.flags.f_contiguous and not array.flags.c_contiguous
    flat = numpy.ascontiguousarray(array.T if is_fortran else array).reshape(-1)
    return flat.view("u1").data if array.size else memoryview(b""), kind, shape, "F" if is_fortran else "C"


def decode(data: bytes) -> np.ndarray[Any, Any]:
    """Undo `encode`; hostile bytes give an error.

    Raises:
        ProtocolError: They are no array.
    """
    try:
        description, shape, body = msgpack.unpackb(data, raw=False)
    except Exception as error:  # msgpack raises many types for hostile bytes
        raise ProtocolError(f"not a packed array: {error}") from None
    return build(description, shape, body, "C")


def build(description: Any, shape: Any, body: Any, order: str) -> np.ndarray[Any, Any]:
    """Return the array of a description and its memory, read-only.

    Raises:
        ProtocolError: They do not fit each other, or are none.
    """
    import numpy as np

    try:
        dtype = _dtype_of(description)
        if dtype.hasobject or dtype.itemsize == 0:
            raise ProtocolError(f"refused array dtype {dtype}")
        sizes = [int(size) for size in shape]
        if min(sizes, default=0) < 0 or len(sizes) > 32:
            raise ProtocolError("refused array shape")
        return np.frombuffer(body, dtype).reshape(sizes, order="F" if order == "F" else "C")
    except ProtocolError:
        raise
    except Exception as error:  # numpy raises many types for hostile descriptions
        raise ProtocolError(f"not a packed array: {error}") from None


def _check(array: np.ndarray[Any, Any]) -> None:
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
