"""Values that may cross a sandbox boundary, as msgpack with four extensions.

Allowed: None, bool, int of any size, float, str, bytes, list, tuple (arrives
as a list), dict with str or int keys, numpy arrays and scalars of plain
dtypes. Never pickle: decoding these bytes runs no code of the sender.

The wire format is msgpack (https://github.com/msgpack/msgpack/blob/master/spec.md)
with extension 1 for numpy arrays and 2 for integers beyond 64 bits. Large parts
may travel beside the packed bytes, untouched: extension 3 stands for such a
buffer, 4 for a value that was packed before.
"""

from __future__ import annotations

import base64
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import msgpack

from runvisor.policies import arrays, shape
from runvisor.policies.decoding_budget import DecodingBudget
from runvisor.policies.errors import ProtocolError, UnserializableValue

Value: TypeAlias = Any
"""A value that `pack` accepts. (A recursive union helps no caller's type checker.)"""

_ARRAY = 1
_BIG_INT = 2
_BUFFER = 3
_PACKED = 4
MAX_BUFFERS: Final = 16
"""Buffers of one value; what is large beyond that stays in the packed bytes."""
LARGE_BYTES: Final = 64 * 1024
_MAX_INT_BYTES = 1 << 16
_MAX_PACKED_DEPTH = 4
_MAX_JSON_BITS = 10_000  # json and str refuse integers of more than 4300 digits

_SMALL = shape.LEAVES - {bytes}
_KEYS = (str, int, float, bytes, type(None))
_BIN_32 = re.compile(rb"(?=\xc6(.{4}))", re.DOTALL)


class Packed:
    """A value that was packed before, to be an input, or a part of one, many times.

    `pack` takes it for the value that it holds, and does not walk through it again.

    Args:
        data: What `pack` returned.
        buffers: What it put aside.

    Example:
        >>> unpack(pack({"table": Packed(pack([1, 2]))}))
        {'table': [1, 2]}
    """

    def __init__(self, data: bytes, buffers: Sequence[Any] = ()) -> None:
        self._data = data
        self._buffers = tuple(buffers)

    @property
    def data(self) -> bytes:
        """The packed bytes."""
        return self._data

    @property
    def buffers(self) -> tuple[Any, ...]:
        """What lies beside them."""
        return self._buffers

    def value(self) -> Value:
        """Return the value itself."""
        return unpack(self.data, buffers=self.buffers)


def pack(value: Value, buffers: list[Any] | None = None, *, large_bytes: int = LARGE_BYTES) -> bytes:
    """Encode a value for the other side of a boundary.

    Args:
        value: Any value named in the module's docstring, or holding `Packed` ones.
        buffers: Where to put large bytes and arrays aside, as views of their memory
            (and a `Packed` value's own buffers); `unpack` needs them in the same order.
            None keeps everything in the result.
        large_bytes: From which size on.

    Raises:
        UnserializableValue: The value, or one inside it, is of another type;
            the message names the type and the place.

    Example:
        >>> unpack(pack({"n": 2**70, "xs": (1, 2.5, None)}))
        {'n': 1180591620717411303424, 'xs': [1, 2.5, None]}
        >>> buffers = []
        >>> data = pack({"blob": bytes(1_000_000)}, buffers)
        >>> len(data) < 100, len(unpack(data, buffers=buffers)["blob"])
        (True, 1000000)
        >>> pack({"f": len})
        Traceback (most recent call last):
        ...
        runvisor.policies.errors.UnserializableValue: a value of type \
builtin_function_or_method cannot leave the sandbox (at value['f']); \
return None, numbers, text, bytes, lists, dicts or numpy arrays
    """
    encoder = _Encoder(buffers, large_bytes)
    packed = encoder.pack_plainly(value)
    if packed is not None:
        return packed
    encoder.restart()
    try:
        packed = msgpack.packb(encoder.put_aside(value), default=encoder.encode)
    except (TypeError, ValueError, OverflowError, RecursionError, UnserializableValue):
        packed = None
    if packed is None or shape.is_odd(value):  # the slow walk serves the message, and integers beyond 64 bits
        encoder.restart()
        try:
            packed = msgpack.packb(_plain(value, "value", 0, encoder.part), default=encoder.encode)
        except (TypeError, ValueError, OverflowError) as error:  # larger than msgpack can say
            raise UnserializableValue(f"the value cannot leave the sandbox: {error}", "value") from None
    assert isinstance(packed, bytes)
    return packed


def unpack(data: bytes | memoryview, *, buffers: Sequence[Any] = (), max_bytes: int | None = None) -> Value:
    """Decode `pack` bytes; hostile bytes give an error, never code execution.

    Arrays are views of the bytes, or of their buffer, and read-only; copy one to
    write to it. Bytes are copied out of their buffer.

    Args:
        data: The packed bytes.
        buffers: What was put aside: anything that gives its memory (bytes, memoryview, mmap).
        max_bytes: About how much memory lists and dicts may come to; None is no bound. A byte
            of hostile ones can cost seventy.

    Raises:
        ProtocolError: The bytes are not one whole packed value, or do not fit the buffers or the bound.
    """
    return _unpack(data, _Decoder(buffers, DecodingBudget(max_bytes) if max_bytes is not None else None))


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
    """Say whether a value from a peer is a finite number that a float can hold.

    Example:
        >>> is_number(1), is_number(float("nan")), is_number(True), is_number(10**400)
        (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _unpack(data: bytes | memoryview, decoder: _Decoder) -> Value:
    options = decoder.budget.options if decoder.budget is not None else {}
    try:
        value = msgpack.unpackb(data, ext_hook=decoder.decode, strict_map_key=False, raw=False, timestamp=1, **options)
    except ProtocolError:
        raise
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"not a packed value: {error}") from None
    if shape.is_too_deep(value):  # its keys are plain: nothing else that is decoded here can be one
        raise ProtocolError(f"a packed value is nested deeper than {shape.MAX_DEPTH} levels")
    return value


def _may_hold_bytes(packed: bytes, large_bytes: int) -> bool:
    """Say whether packed data may hold bytes of at least a size: so many have a head of their own (bin 32)."""
    if len(packed) < large_bytes:
        return False
    if large_bytes < LARGE_BYTES:
        return True
    return any(
        large_bytes <= int.from_bytes(match[1], "big") <= len(packed) - match.end()
        for match in _BIN_32.finditer(packed)
    )


def _encode(item: Any) -> object:
    """Encode one of numpy's scalars."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(item, numpy.generic) and item.dtype.kind in "biufSU":
        return float(item) if item.dtype.kind == "f" else item.item()  # a longdouble's item() is a longdouble
    raise UnserializableValue(
        f"a value of type {type(item).__name__} cannot leave the sandbox",
        "",
        "return None, numbers, text, bytes, lists, dicts or numpy arrays",
    )


class _Encoder:
    """Packs what msgpack itself cannot, and puts large parts aside if it may."""

    def __init__(self, buffers: list[Any] | None, large_bytes: int) -> None:
        self._buffers = buffers
        self._first = len(buffers or ())
        self._large_bytes = large_bytes
        self._has_tuples = False

    def restart(self) -> None:
        """Forget what was put aside so far."""
        if self._buffers is not None:
            del self._buffers[self._first :]

    def pack_plainly(self, value: Any) -> bytes | None:
        """Pack a value in one pass of C; None if something in it takes a closer look."""
        self._has_tuples = False
        try:
            packed = msgpack.packb(value, strict_types=True, default=self._encode_plainly)
        except (TypeError, ValueError, OverflowError, RecursionError, UnserializableValue):
            return None
        assert isinstance(packed, bytes)
        if self._buffers is not None and _may_hold_bytes(packed, self._large_bytes):
            return None
        # Only a tuple becomes a key that nobody can unpack; all other keys are plain, or were refused.
        is_odd = shape.is_odd(value) if self._has_tuples else shape.is_too_deep(value)
        return None if is_odd else packed

    def _encode_plainly(self, item: Any) -> object:
        if type(item) is tuple:
            self._has_tuples = True
            return list(item)
        numpy = sys.modules.get("numpy")
        if isinstance(item, _KEYS + shape.CONTAINERS) and not (numpy is not None and isinstance(item, numpy.generic)):
            raise TypeError("a subclass, or an integer beyond 64 bits")
        return self.encode(item)

    def put_aside(self, value: Any, depth: int = 0) -> Any:
        """Return the value with large bytes replaced; containers without any are not copied."""
        if self._buffers is None or depth > shape.MAX_DEPTH:
            return value
        if isinstance(value, dict):
            if _SMALL.issuperset(map(type, value.values())):
                return value
            return {key: self.put_aside(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return value if _SMALL.issuperset(map(type, value)) else [self.put_aside(v, depth + 1) for v in value]
        return self._bytes(value) if isinstance(value, bytes | bytearray | memoryview) else value

    def encode(self, item: Any) -> object:
        """Encode numpy and packed values (called by msgpack)."""
        if isinstance(item, Packed):
            return self._packed(item)
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(item, numpy.ndarray):
            return self._array(numpy, item)
        return _encode(item)

    def part(self, item: Any) -> object:
        """Encode a leaf that the slow walk came to."""
        return self._bytes(item) if isinstance(item, bytes | bytearray | memoryview) else self.encode(item)

    def _bytes(self, item: bytes | bytearray | memoryview) -> object:
        view = memoryview(item)
        if not self._takes(view.nbytes) or not view.c_contiguous:
            return item
        return self._reference(view.cast("B"), None, [], "C")

    def _array(self, numpy: Any, array: Any) -> object:
        if not self._takes(array.nbytes):
            return msgpack.ExtType(_ARRAY, arrays.encode(numpy, array))
        return self._reference(*arrays.take_apart(numpy, array))

    def _packed(self, item: Packed) -> object:
        if self._buffers is None or len(self._buffers) + len(item.buffers) > MAX_BUFFERS:
            return msgpack.ExtType(_PACKED, msgpack.packb([0, 0, pack(item.value())]))
        base = len(self._buffers)
        self._buffers += item.buffers
        return msgpack.ExtType(_PACKED, msgpack.packb([base, len(item.buffers), item.data]))

    def _takes(self, size: int) -> bool:
        return self._buffers is not None and 0 < size >= self._large_bytes and len(self._buffers) < MAX_BUFFERS

    def _reference(self, view: memoryview, kind: Any, shape: list[int], order: str) -> msgpack.ExtType:
        assert self._buffers is not None
        self._buffers.append(view)
        return msgpack.ExtType(_BUFFER, msgpack.packb([len(self._buffers) - 1, kind, shape, order]))


class _Decoder:
    """Decodes extensions; each buffer is one part of the value."""

    def __init__(self, buffers: Sequence[Any], budget: DecodingBudget | None = None, depth: int = 0) -> None:
        self._left: dict[int, Any] = dict(enumerate(buffers))
        self.budget = budget
        self._depth = depth

    def decode(self, code: int, data: bytes) -> object:
        """Decode one (called by msgpack)."""
        if code == _BIG_INT and 0 < len(data) <= _MAX_INT_BYTES:
            return int.from_bytes(data, "little", signed=True)
        if code == _ARRAY:
            return arrays.decode(data)
        if code == _BUFFER:
            index, description, shape, order = _fields(data, int, object, list, str)
            view = memoryview(self._take(index)).toreadonly().cast("B")
            return bytes(view) if description is None else arrays.build(description, shape, view, order)
        if code == _PACKED and self._depth < _MAX_PACKED_DEPTH:
            base, count, inner = _fields(data, int, int, bytes)
            parts = [self._take(base + i) for i in range(min(count, MAX_BUFFERS))]
            return _unpack(inner, _Decoder(parts, self.budget, self._depth + 1))
        raise ProtocolError(f"unknown extension {code} in a packed value")

    def _take(self, index: int) -> Any:
        """Return a buffer, once: a reference is small, and a copy of what it stands for is not."""
        if index not in self._left:
            raise ProtocolError(f"a packed value refers to buffer {index}, which is not there, or twice")
        return self._left.pop(index)


def _fields(data: bytes, *kinds: type) -> Any:
    try:
        fields = msgpack.unpackb(data, raw=False)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise ProtocolError(f"not a packed reference: {error}") from None
    if not isinstance(fields, list) or len(fields) != len(kinds) or not all(map(isinstance, fields, kinds)):
        raise ProtocolError("not a packed reference")
    return fields


def _plain(value: object, where: str, depth: int, encode: Callable[[Any], object]) -> object:
    """Copy the value with big integers encoded, or raise with the exact place."""
    if depth > shape.MAX_DEPTH:
        raise UnserializableValue(
            f"the value is nested deeper than {shape.MAX_DEPTH} levels", where[:120], "return flatter data"
        )
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UnserializableValue(
                "text with lone surrogates cannot leave the sandbox", where, "return valid Unicode, or bytes"
            ) from None
    if isinstance(value, bool) or value is None or isinstance(value, float | str):
        return value
    if isinstance(value, int):
        if -(2**63) <= value < 2**64:
            return value
        size = value.bit_length() // 8 + 1
        if size > _MAX_INT_BYTES:
            raise UnserializableValue(f"an integer of {size} bytes is too large to return", where)
        return msgpack.ExtType(_BIG_INT, value.to_bytes(size, "little", signed=True))
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]", depth + 1, encode) for index, item in enumerate(value)]
    if isinstance(value, dict):
        copy: dict[object, object] = {}
        for key, item in value.items():
            if not shape.are_keys((key,)):
                raise UnserializableValue(
                    f"a dict key of type {type(key).__name__} cannot leave the sandbox",
                    where,
                    "use text or integers as keys",
                )
            place = f"{where}[{key!r}]"
            copy[key if isinstance(key, bytes) else _plain(key, place, depth + 1, encode)] = _plain(
                item, place, depth + 1, encode
            )
        return copy
    try:
        return encode(value)
    except UnserializableValue as error:
        raise UnserializableValue(error.what, where, error.remedy) from None
