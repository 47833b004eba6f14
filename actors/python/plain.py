"""Plain forms of the objects that Python code likes to return, so that they can leave the sandbox.

A task's value leaves as `runvisor.policies.values` packs it. What has no place
there but one obvious plain form (a set, a date, a table) takes that form here,
and what has none is refused by name.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import pathlib
import sys
import uuid
from collections import abc, deque
from dataclasses import fields, is_dataclass
from typing import Any, Final

from runvisor.actors.python import tables
from runvisor.policies.errors import UnserializableValue
from runvisor.policies.values import pack

_MAX_DEPTH: Final = 200
_LEAVES: Final = frozenset((bool, int, float, str, bytes, type(None)))
_AS_TEXT: Final = (decimal.Decimal, fractions.Fraction, uuid.UUID, pathlib.PurePath)
_AS_LIST: Final = (deque, range, abc.KeysView, abc.ValuesView, abc.ItemsView)


def packed(value: Any) -> bytes:
    """Pack a value, in its plain form if it cannot be packed as it is.

    Raises:
        UnserializableValue: It holds something that has no plain form.

    Example:
        >>> from runvisor.policies.values import unpack
        >>> unpack(packed({"when": datetime.date(2026, 1, 2), "seen": {3, 1}}))
        {'when': '2026-01-02', 'seen': [1, 3]}
    """
    try:
        return pack(value)
    except UnserializableValue:
        return pack(plain(value))


def plain(value: Any, depth: int = 0) -> Any:
    """Return the plain form of a value and of all in it; what has none is returned as it is.

    Args:
        value: Any object.
        depth: How deep it lies in the value that is asked for.

    Raises:
        UnserializableValue: Nested deeper than a value may be, or a table whose columns share a name.
    """
    if type(value) in _LEAVES:
        return value
    if depth > _MAX_DEPTH:
        raise UnserializableValue(
            f"the value is nested deeper than {_MAX_DEPTH} levels, or holds itself", "value", "return flatter data"
        )
    if isinstance(value, dict):
        return {_key(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return [plain(item, depth + 1) for item in _ordered(value)]
    if isinstance(value, enum.Enum):
        return plain(value.value, depth + 1)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), depth + 1) for field in fields(value)}
    if isinstance(value, _AS_LIST):
        return [plain(item, depth + 1) for item in value]
    columns = tables.columns_of(value)
    if columns is not None:
        return {name: _items(column, depth + 1) for name, column in columns.items()}
    return _scalar(value, depth)


def _scalar(value: Any, depth: int) -> Any:
    if tables.is_missing(value):
        return None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, _AS_TEXT):
        return str(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.datetime64):
            return None if numpy.isnat(value) else str(value)
        if isinstance(value, numpy.timedelta64):
            return None if numpy.isnat(value) else float(value / numpy.timedelta64(1, "ns")) / 1e9
        if isinstance(value, numpy.ndarray) and value.dtype.kind == "O":
            return plain(value.tolist(), depth + 1)
    values = tables.values_of(value)
    if values is not None:
        return _items(values, depth + 1)
    text = tables.text_of(value)
    return value if text is None else text


def _items(items: list[Any], depth: int) -> list[Any]:
    return items if set(map(type, items)) <= _LEAVES else [plain(item, depth) for item in items]


def _key(key: Any) -> Any:
    """Dates and the like may be keys too, as the text that they become."""
    if type(key) in _LEAVES:
        return key
    form = plain(key)
    return form if type(form) in _LEAVES else key


def _ordered(items: abc.Set[Any]) -> list[Any]:
    """Sort a set where that is possible: its own order differs from run to run."""
    try:
        return sorted(items)
    except TypeError:
        return list(items)
