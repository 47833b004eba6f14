"""Plain values to component values, and back.

Lists of numbers go at once: a component value is a kind and a union, of which a
number fills the first bytes.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Final

from runvisor.actors.wasm.components import capi
from runvisor.actors.wasm.components.capi import KIND, Val
from runvisor.policies.errors import OutputLimitExceeded
from runvisor.policies.values import Value
from runvisor.policies.wit.types import (
    Enum,
    Flags,
    ListOf,
    Option,
    Record,
    ResultOf,
    Scalar,
    TupleOf,
    Type,
    Variant,
)

_MAX_PARTS: Final = 2_000_000
"""Of one result: each is made by itself."""
_FORMATS: Final = {
    "bool": "?", "s8": "b", "u8": "B", "s16": "h", "u16": "H", "s32": "i", "u32": "I", "s64": "q", "u64": "Q",
    "f32": "f", "f64": "d",
}  # fmt: skip
_OF: Final = Val.of.offset


def _entry(name: str) -> struct.Struct:
    code = _FORMATS[name]
    rest = capi.VAL_BYTES - _OF - struct.calcsize(f"<{code}")
    return struct.Struct(f"<B{_OF - 1}x{code}{rest}x")


_ENTRIES: Final = {name: _entry(name) for name in _FORMATS}


def lower(kind: Type, value: Value, out: Any) -> None:
    """Write a value into an empty component value, which owns all of it.

    Args:
        kind: Its type.
        value: What `runvisor.policies.wit.checks.check` returned.
        out: A `Val`.
    """
    match kind:
        case Scalar("string"):
            _text(out.of.string, value)
            out.kind = KIND["string"]
        case Scalar("char"):
            out.kind, out.of.character = KIND["char"], ord(value)
        case Scalar(name):
            ctypes.memmove(ctypes.addressof(out), _ENTRIES[name].pack(KIND[name], value), capi.VAL_BYTES)
        case ListOf(element):
            capi.list_new(ctypes.addressof(out.of.list), len(value))
            _fill(element, value, out.of.list.data)
            out.kind = KIND["list"]
        case Record(fields):
            capi.record_new(ctypes.addressof(out.of.record), len(fields))
            for index, (name, field) in enumerate(fields):
                entry = out.of.record.data[index]
                _text(entry.name, name)
                lower(field, value[name], entry.val)
            out.kind = KIND["record"]
        case TupleOf(items):
            capi.tuple_new(ctypes.addressof(out.of.tuple), len(items))
            for index, item in enumerate(items):
                lower(item, value[index], out.of.tuple.data[index])
            out.kind = KIND["tuple"]
        case Variant(cases):
            tag, payload = (value, None) if isinstance(value, str) else (value["tag"], value["value"])
            _text(out.of.variant.discriminant, tag)
            out.of.variant.val = _boxed(dict(cases)[tag], payload)
            out.kind = KIND["variant"]
        case Enum():
            _text(out.of.enumeration, value)
            out.kind = KIND["enum"]
        case Option(inner):
            given = value["some"] if value is not None and isinstance(inner, Option) else value
            out.of.option = None if value is None else _boxed(inner, given)
            out.kind = KIND["option"]
        case ResultOf(ok, error):
            is_ok = "ok" in value
            out.of.result.is_ok = is_ok
            out.of.result.val = _boxed(ok, value["ok"]) if is_ok else _boxed(error, value["error"])
            out.kind = KIND["result"]
        case Flags():
            capi.flags_new(ctypes.addressof(out.of.flags), len(value))
            for index, name in enumerate(value):
                _text(out.of.flags.data[index], name)
            out.kind = KIND["flags"]


def _fill(element: Type, values: Any, data: Any) -> None:
    if isinstance(element, Scalar) and element.name in _ENTRIES:
        pack, kind = _ENTRIES[element.name].pack, KIND[element.name]
        packed = b"".join([pack(kind, value) for value in values])
        ctypes.memmove(data, packed, len(packed))
        return
    for index, value in enumerate(values):
        lower(element, value, data[index])


def _text(out: Any, text: str) -> None:
    data = text.encode()
    capi.text_new(ctypes.addressof(out), len(data), data)


def _boxed(kind: Type | None, value: Value) -> Any:
    if kind is None:
        return None
    inner = Val()
    lower(kind, value, inner)
    return ctypes.cast(capi.val_new(ctypes.addressof(inner)), ctypes.POINTER(Val))


class Lifting:
    """Reads one result, up to a bound.

    Example:
        >>> out = Val()
        >>> lower(ListOf(Option(Scalar("char"))), ["a", None], out)
        >>> Lifting().lift(ListOf(Option(Scalar("char"))), out)
        ['a', None]
        >>> capi.val_delete(ctypes.addressof(out))
    """

    def __init__(self) -> None:
        self._left = _MAX_PARTS

    def lift(self, kind: Type, val: Any) -> Value:
        """Return the plain form of a component value; it stays the caller's.

        Args:
            kind: Its type, which Wasmtime has seen to.
            val: A `Val`.

        Raises:
            OutputLimitExceeded: It has too many parts.
        """
        self._take(1)
        match kind:
            case Scalar("string"):
                return _read(val.of.string)
            case Scalar("char"):
                return chr(val.of.character)
            case Scalar(name):
                return _ENTRIES[name].unpack(ctypes.string_at(ctypes.addressof(val), capi.VAL_BYTES))[1]
            case ListOf(element):
                return self._list(element, val.of.list.data, val.of.list.size)
            case Record(fields):
                return {name: self.lift(field, val.of.record.data[i].val) for i, (name, field) in enumerate(fields)}
            case TupleOf(items):
                return [self.lift(item, val.of.tuple.data[index]) for index, item in enumerate(items)]
            case Variant(cases):
                tag = _read(val.of.variant.discriminant)
                payload = dict(cases)[tag]
                return tag if payload is None else {"tag": tag, "value": self._box(payload, val.of.variant.val)}
            case Enum():
                return _read(val.of.enumeration)
            case Option(inner):
                if not val.of.option:
                    return None
                value = self._box(inner, val.of.option)
                return {"some": value} if isinstance(inner, Option) else value
            case ResultOf(ok, error):
                result = val.of.result
                return {"ok": self._box(ok, result.val)} if result.is_ok else {"error": self._box(error, result.val)}
            case Flags():
                flags = val.of.flags
                self._take(flags.size)
                return [_read(flags.data[index]) for index in range(flags.size)]

    def _take(self, parts: int) -> None:
        self._left -= parts
        if self._left < 0:
            raise OutputLimitExceeded(
                f"the function's value has more than {_MAX_PARTS} parts", "value", "return a summary"
            )

    def _list(self, element: Type, data: Any, size: int) -> Value:
        if isinstance(element, Scalar) and element.name in _ENTRIES and size:
            if element.name == "u8":
                return ctypes.string_at(data, size * capi.VAL_BYTES)[_OF :: capi.VAL_BYTES]
            self._take(size)
            packed = ctypes.string_at(data, size * capi.VAL_BYTES)
            return [value for _, value in _ENTRIES[element.name].iter_unpack(packed)]
        if element == Scalar("u8"):
            return b""
        self._take(size)
        return [self.lift(element, data[index]) for index in range(size)]

    def _box(self, kind: Type | None, pointer: Any) -> Value:
        return None if kind is None else self.lift(kind, pointer.contents)


def _read(text: Any) -> str:
    return ctypes.string_at(text.data, text.size).decode(errors="replace") if text.size else ""
