"""Values on their way out of an isolate, on the guest process's side. See driver/values.js."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack

from runvisor.actors.v8.inputs import ARRAY_EXTENSION, INTEGER_EXTENSION, KINDS
from runvisor.policies.errors import UnserializableValue
from runvisor.policies.values import pack

_DTYPES: Final = {kind: dtype for dtype, kind in KINDS.items()}
_BYTES: Final = ("Uint8Array", "Uint8ClampedArray", "ArrayBuffer", "DataView")


def to_packed(value: Any, token: str, buffers: Sequence[Callable[[], bytes]], *, has_marks: bool) -> bytes:
    """Return the packed form of the value that a report holds.

    Args:
        value: The report's value, as JSON decodes it.
        token: The secret key.
        buffers: One for each buffer beside it.
        has_marks: Whether the secret key occurs in it.

    Raises:
        UnserializableValue: It cannot leave the sandbox.

    Example:
        >>> from runvisor.policies.values import unpack
        >>> unpack(to_packed([{"t": "-ff"}, {"t": [0, "ArrayBuffer", 2]}], "t", [lambda: b"xy"], has_marks=True))
        [-255, b'xy']
    """
    try:  # without the walk of `pack` through the value: JSON has no type and no key that it would find
        packed = msgpack.packb(_resolved(value, token, buffers) if has_marks else value)
    except (ValueError, OverflowError):
        return pack(value)  # says what is wrong and where, or copes with it
    assert isinstance(packed, bytes)
    return packed


def _resolved(value: Any, token: str, buffers: Sequence[Callable[[], bytes]]) -> Any:
    if isinstance(value, list):
        return [_resolved(item, token, buffers) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return _integer(value)
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and token in value:
        mark = value[token]
        return _integer(int(mark, 16)) if isinstance(mark, str) else _array(mark[1], buffers[mark[0]]())
    return {key: _resolved(item, token, buffers) for key, item in value.items()}


def _array(kind: str, data: bytes) -> Any:
    if kind in _BYTES:
        return data
    dtype = _DTYPES.get(kind)
    if dtype is None:
        raise UnserializableValue(f"a {kind} cannot leave the sandbox", "value", "return a Uint8Array")
    described = ("|" if dtype[1] == "1" else "<") + dtype
    return msgpack.ExtType(ARRAY_EXTENSION, msgpack.packb([described, [len(data) // int(dtype[1])], data]))


def _integer(value: int) -> Any:
    if -(2**63) <= value < 2**64:
        return value
    size = value.bit_length() // 8 + 1
    return msgpack.ExtType(INTEGER_EXTENSION, value.to_bytes(size, "little", signed=True))
