"""Values on their way into an isolate, on the guest process's side.

JSON text carries the plain part. What JSON cannot say stands in it as an
object with one secret key: numbers by name, big integers as digits, bytes
and arrays by the number of a buffer beside the text. driver/values.js reads
it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgpack

from runvisor.actors.v8.shared import SharedBuffer
from runvisor.policies.values import to_json, unpack

if TYPE_CHECKING:
    from runvisor.actors.v8.bridge import Bridge

ARRAY_EXTENSION: Final = 1
INTEGER_EXTENSION: Final = 2
_BUFFER_EXTENSION: Final = 3
"""The extensions of `runvisor.policies.values`, read here without importing numpy for them."""
KINDS: Final = {
    "i1": "Int8Array",
    "u1": "Uint8Array",
    "i2": "Int16Array",
    "u2": "Uint16Array",
    "i4": "Int32Array",
    "u4": "Uint32Array",
    "i8": "BigInt64Array",
    "u8": "BigUint64Array",
    "f2": "Float16Array",
    "f4": "Float32Array",
    "f8": "Float64Array",
}
"""What a numpy array of a dtype arrives as."""
_SAFE_INTEGER: Final = 2**53
_LONG_INTEGER: Final = re.compile(r"[1-9]\d{15}")
# The types uint 64 and int 64 of msgpack with more than 53 bits, and now and then other bytes that look so.
_LONG_PACKED: Final = re.compile(rb"\xcf(?!\x00[\x00-\x1f])|\xd3(?!\x00[\x00-\x1f]|\xff[\xe0-\xff])", re.DOTALL)
_MAX_DECIMAL_BITS: Final = 4000


@dataclass(frozen=True, slots=True)
class Array:
    """Bytes, or a numeric array, as they came over the wire."""

    dtype: str
    """Its code and size, such as ``f8``."""
    shape: tuple[int, ...]
    data: bytes | memoryview | SharedBuffer


@dataclass(frozen=True, slots=True)
class Leaf:
    """Bytes beside the text."""

    data: bytes | memoryview | SharedBuffer

    def place(self, bridge: Bridge) -> None:
        """Give the isolate a buffer with these bytes."""
        from runvisor.actors.v8.bridge import Entry  # other engines read this module too, and have no V8
        from runvisor.actors.v8.isolate import Buffer

        shared = self.data if isinstance(self.data, SharedBuffer) else None
        size = shared.nbytes if shared else len(self.data)  # type: ignore[arg-type]
        buffer = bridge.call(Entry.RESERVE, size, shared is not None)
        assert isinstance(buffer, Buffer)
        if shared is None:
            assert not isinstance(self.data, SharedBuffer)
            buffer.write(self.data)
        else:
            shared.map_at(buffer.address)


@dataclass(frozen=True, slots=True)
class Inputs:
    """A decoded input."""

    value: Any
    may_hold_long_integers: bool
    """There may be integers that a double cannot hold."""


class _Unusual(Exception):
    """Something that takes numpy to decode."""


@dataclass(slots=True)
class _Extensions:
    buffers: Sequence[SharedBuffer]
    has_integers: bool = field(default=False)

    def decode(self, code: int, data: bytes) -> Any:
        if code == INTEGER_EXTENSION:
            self.has_integers = True
            return int.from_bytes(data, "little", signed=True)
        if code == ARRAY_EXTENSION:
            dtype, shape, body = msgpack.unpackb(data, raw=False)
            return Array(_plain(dtype), tuple(shape), memoryview(body))
        if code == _BUFFER_EXTENSION:
            index, dtype, shape, order = msgpack.unpackb(data, raw=False)
            buffer = self.buffers[index]
            if dtype is None:
                return Array("u1", (buffer.nbytes,), buffer)
            if order == "C":
                return Array(_plain(dtype), tuple(shape), buffer)
        raise _Unusual


def _plain(dtype: Any) -> str:
    if not isinstance(dtype, str) or dtype[1:] not in KINDS or dtype[0] not in "<|":
        raise _Unusual
    return dtype[1:]


def decode(data: bytes, buffers: Sequence[SharedBuffer] = ()) -> Inputs:
    """Unpack inputs, with arrays as `Array` where their dtype has a typed array.

    Args:
        data: Bytes of `runvisor.policies.values.pack`.
        buffers: What stands beside them.
    """
    extensions = _Extensions(buffers)
    try:
        value = msgpack.unpackb(data, ext_hook=extensions.decode, strict_map_key=False, raw=False)
    except _Unusual:
        value = unpack(data, buffers=[buffer.view() for buffer in buffers])
        return Inputs(value, may_hold_long_integers=True)
    return Inputs(value, extensions.has_integers or _may_hold_long_integers(value, data))


def _may_hold_long_integers(value: Any, data: bytes) -> bool:
    if isinstance(value, str) or not (b"\xcf" in data or b"\xd3" in data):  # looked for at a tenth of the cost
        return False
    return _LONG_PACKED.search(data) is not None


def to_text(inputs: Inputs, token: str) -> tuple[str, list[Leaf]]:
    """Return the JSON text of an input and the buffers beside it.

    Args:
        inputs: From `decode`.
        token: The secret key.

    Example:
        >>> from runvisor.policies.values import pack
        >>> to_text(decode(pack({"a": [1, b"xy"]})), "t")
        ('{"a":[1,{"t":[0,"Uint8Array",2,[2]]}]}', [Leaf(data=b'xy')])
        >>> to_text(decode(pack([float("inf"), 2**60])), "t")[0]
        '[{"t":"Infinity"},{"t":"1152921504606846976"}]'
    """
    leaves: list[Leaf] = []

    def encode(item: Any) -> Any:
        if isinstance(item, Array):
            leaves.append(Leaf(item.data))
            return {token: [len(leaves) - 1, KINDS[item.dtype], math.prod(item.shape), item.shape]}
        if isinstance(item, bytes):
            leaves.append(Leaf(item))
            return {token: [len(leaves) - 1, "Uint8Array", len(item), [len(item)]]}
        return _marked(to_json(item), token)

    try:
        text = _dump(inputs.value, encode)
        if not (inputs.may_hold_long_integers and _LONG_INTEGER.search(text)):
            return text, leaves
    except (ValueError, TypeError):  # not finite, or keys that JSON does not know
        pass
    leaves.clear()
    return _dump(_marked(inputs.value, token), encode), leaves


def _dump(value: Any, encode: Any) -> str:
    return json.dumps(value, allow_nan=False, default=encode, separators=(",", ":"), ensure_ascii=False)


def _marked(value: Any, token: str) -> Any:
    """Copy a value with the numbers marked that JSON or a double cannot say."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return {token: "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, int) and not -_SAFE_INTEGER <= value <= _SAFE_INTEGER:
        if value.bit_length() > _MAX_DECIMAL_BITS and value > 0:
            return {token: hex(value)}
        return {token: str(value)} if value.bit_length() <= _MAX_DECIMAL_BITS else hex(value)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _marked(item, token) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item, token) for item in value]
    return value
