"""The fields of a struct as plain values: integers, lists, dicts, and arrays where there are many.

A single integer is an int, a struct a dict. An array of up to `PLAIN_ELEMENTS` integers
is a list; a longer one, and every array of structs, is a numpy array of the layout's
dtype, whose padding is zero.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from runvisor.policies.dtypes import copy_fields, element_of, has_gaps
from runvisor.policies.errors import InvalidTask
from runvisor.policies.structs import Member, Struct
from runvisor.policies.values import Value

PLAIN_ELEMENTS: Final = 1024
"""Most integers that come as a list."""
_CODES: Final = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "s8": "b", "s16": "h", "s32": "i", "s64": "q"}
_WIDEST_INTEGER: Final = 9
_WIDEST_FRAME: Final = 32
"""More than what msgpack writes around the fields of a map, a name or a list."""


class StructValues:
    """Reads and writes the bytes of one struct.

    Args:
        struct: Its layout.

    Example:
        >>> from runvisor.policies.structs import lay_out
        >>> group = lay_out("group", [("u64", "count", None), ("u32", "top", None)])
        >>> values = StructValues(lay_out("state", [("s16", "low", None), ("u8", "seen", 2), (group, "groups", 2)]))
        >>> fields = values.decode(values.encode({"low": -7, "groups": [{"count": 1}, {"top": 3}]}, "state"))
        >>> fields["low"], fields["seen"], fields["groups"].tolist()
        (-7, [0, 0], [(1, 0), (0, 3)])
    """

    def __init__(self, struct_: Struct) -> None:
        self.struct = struct_
        self._inner = {
            member.name: StructValues(member.of)
            for member in struct_.members
            if member.of is not None and member.count is None
        }
        self._arrays = {
            member.name: element_of(member)
            for member in struct_.members
            if member.count is not None and (member.of is not None or member.count > PLAIN_ELEMENTS)
        }
        text, end = "<", 0
        for member in struct_.members:
            if member.name not in self._inner and member.name not in self._arrays:
                text += f"{member.offset - end}x{member.count or 1}{_CODES[member.type]}"
                end = member.offset + member.size
        self._plain = struct.Struct(f"{text}{struct_.size - end}x")

    @property
    def widest_bytes(self) -> int:
        """No value of the struct takes more bytes than this on the wire."""
        return _WIDEST_FRAME + sum(_WIDEST_FRAME + len(m.name) + self._widest(m) for m in self.struct.members)

    @property
    def narrowest_bytes(self) -> int:
        """And none takes fewer: an integer takes a byte, an element of an array all that it has."""
        total = 0
        for member in self.struct.members:
            if member.name in self._inner:
                total += self._inner[member.name].narrowest_bytes
            else:
                total += member.size if member.name in self._arrays else member.count or 1
        return total

    def decode(self, data: bytes | bytearray | memoryview) -> dict[str, Value]:
        """Return the fields of exactly ``struct.size`` bytes, in the order of the struct."""
        flat = self._plain.unpack(data)
        fields: dict[str, Value] = {}
        index = 0
        for member in self.struct.members:
            if member.name in self._inner:
                part = memoryview(data)[member.offset : member.offset + member.size]
                fields[member.name] = self._inner[member.name].decode(part)
            elif member.name in self._arrays:
                element = self._arrays[member.name]
                fields[member.name] = without_gaps(np.frombuffer(data, element, member.count or 1, member.offset))
            elif member.count is None:
                fields[member.name] = flat[index]
                index += 1
            else:
                fields[member.name] = list(flat[index : index + member.count])
                index += member.count
        return fields

    def encode(self, fields: Mapping[str, Any], where: str) -> bytes:
        """Return the bytes of the fields; what is not named is zero, padding too.

        Args:
            fields: Values as `decode` gives them; arrays and lists stand for each other.
            where: What to call this struct in messages.

        Raises:
            InvalidTask: A name that it does not have, or a value that does not fit.
        """
        target = bytearray(self.struct.size)
        members = {member.name: member for member in self.struct.members}
        for name, value in fields.items():
            member = members.get(name)
            place = f"{where}[{name!r}]"
            if member is None:
                raise InvalidTask(
                    f"struct {self.struct.name} has no field {str(name)[:80]!r}", place, f"it has {', '.join(members)}"
                )
            target[member.offset : member.offset + member.size] = _encode(member, value, place)
        return bytes(target)

    def _widest(self, member: Member) -> int:
        if member.name in self._inner:
            return self._inner[member.name].widest_bytes
        if member.name in self._arrays:
            return member.size + _description_bytes(self._arrays[member.name])
        return _WIDEST_INTEGER * (member.count or 1)


def without_gaps(items: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a copy of items with zeros between and behind their fields."""
    if not has_gaps(items.dtype):
        return items.copy()
    clean = np.zeros(items.shape, items.dtype)
    copy_fields(items, clean)
    return clean


def _description_bytes(dtype: np.dtype[Any]) -> int:
    """Return more than what the description of an array takes on the wire."""
    base = dtype.subdtype[0] if dtype.subdtype is not None else dtype
    names = base.names or ()
    return 4 * _WIDEST_FRAME + sum(2 * _WIDEST_FRAME + 4 * len(name) + _description_bytes(base[name]) for name in names)


def _encode(member: Member, value: object, where: str) -> bytes:
    """Return the bytes of one member's value."""
    if isinstance(value, np.ndarray):
        return _encode_array(member, value, where)
    if member.count is None:
        return _encode_one(member, value, where)
    if not isinstance(value, list | tuple) or len(value) != member.count:
        what = "integers" if member.of is None else f"struct {member.of.name}"
        raise InvalidTask(f"not a list of {member.count} {what}", where)
    return b"".join(_encode_one(member, item, f"{where}[{index}]") for index, item in enumerate(value))


def _encode_one(member: Member, value: object, where: str) -> bytes:
    if member.of is None:
        return _integer(value, member.type, where).to_bytes(member.width, "little", signed=member.type[0] == "s")
    if isinstance(value, Mapping):
        return StructValues(member.of).encode(value, where)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) == len(member.of.members):
        return StructValues(member.of).encode(dict(zip((m.name for m in member.of.members), value, strict=True)), where)
    raise InvalidTask(f"not the fields of struct {member.of.name}", where, "pass {field: value}")


def _encode_array(member: Member, value: np.ndarray[Any, Any], where: str) -> bytes:
    """Return the bytes of an array: of integers that fit, or of the struct's own dtype."""
    if value.shape != (() if member.count is None else (member.count,)):
        raise InvalidTask(f"an array of shape {value.shape} is not {member.text!r}", where)
    element = element_of(member)
    if value.dtype == element:
        return without_gaps(np.ascontiguousarray(value)).tobytes()
    if member.of is not None:
        raise InvalidTask(
            f"an array of dtype {value.dtype} is not one of struct {member.of.name}", where, f"make it of {element}"
        )
    if value.dtype.kind not in "iu":
        raise InvalidTask(f"an array of dtype {value.dtype} does not hold integers", where)
    for extreme in (int(value.min()), int(value.max())):
        _integer(extreme, member.type, where)
    return value.astype(element).tobytes()


def _integer(value: Any, kind: str, where: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidTask(f"{str(value)[:40]!r} is not an integer", where) from None
    bits, low = int(kind[1:]), 0
    if kind[0] == "s":
        bits, low = bits - 1, -(1 << (bits - 1))
    if not low <= number < 1 << bits:
        raise InvalidTask(f"{number} does not fit {kind}", where, f"give {low} to {(1 << bits) - 1}")
    return number


def first_state(values: StructValues | None, fields: Mapping[str, Any]) -> bytes:
    """Return the bytes of a program's state before its first record or packet; fields left out are zero.

    Args:
        values: Of its ``struct state``; None if it has none.
        fields: What the task's inputs give, by name.

    Raises:
        InvalidTask: A name that the state does not have, or a value that does not fit.
    """
    if values is not None:
        return values.encode(fields, "inputs['state']")
    if fields:
        raise InvalidTask("the program has no state to set", "inputs['state']", "declare struct state, or leave it out")
    return b""
