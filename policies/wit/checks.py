"""Whether plain values fit WIT types, and where they do not."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from runvisor.policies.errors import InvalidTask
from runvisor.policies.values import Value
from runvisor.policies.wit.types import (
    FLOATS,
    INTEGERS,
    Enum,
    Flags,
    Function,
    ListOf,
    Option,
    Record,
    ResultOf,
    Scalar,
    TupleOf,
    Type,
    Variant,
    spell,
)

_NAMES: Final = {
    type(None): "nothing",
    bool: "a truth value",
    int: "a whole number",
    float: "a number",
    str: "a text",
    bytes: "bytes",
    list: "a list",
    dict: "a mapping",
}
_MAX_SPELT: Final = 200


def check_arguments(function: Function, given: Value) -> list[Value]:
    """Return the arguments of a call in order, each as `check` returns it.

    Args:
        function: What is to be called.
        given: A mapping by name, where options may be left out, or a list in order.

    Raises:
        InvalidTask: They do not fit; says where.

    Example:
        >>> half = Function("half", (("of", Scalar("f64")),), Scalar("f64"))
        >>> check_arguments(half, {"of": 3}), check_arguments(half, [3])
        ([3.0], [3.0])
        >>> try:
        ...     check_arguments(half, {"of": "3"})
        ... except InvalidTask as error:
        ...     print(error.where, error.what, sep=": ")
        arguments.of: a text where f64 is due
    """
    try:
        if isinstance(given, list):
            return _in_order(function.parameters, given, "arguments")
        return list(_by_name(function.parameters, given, "arguments").values())
    except InvalidTask as error:
        raise InvalidTask(error.what, error.where, error.remedy or f"it is {str(function)[:_MAX_SPELT]}") from None


def check(kind: Type, value: Value, where: str) -> Value:
    """Return a value that fits a type: a number that is due as float is one, an option that may be left out is there.

    Args:
        kind: The type.
        value: What came.
        where: Its place, for the error.

    Raises:
        InvalidTask: It does not fit.

    Example:
        >>> check(Record((("x", Scalar("f64")), ("y", Option(Scalar("u8"))))), {"x": 1}, "point")
        {'x': 1.0, 'y': None}
    """
    match kind:
        case Scalar(name):
            return _scalar(name, value, where)
        case ListOf(element):
            if element == Scalar("u8") and isinstance(value, bytes):
                return value
            if not isinstance(value, list):
                raise _unfit(kind, value, where)
            checked = [check(element, item, f"{where}[{index}]") for index, item in enumerate(value)]
            return bytes(checked) if element == Scalar("u8") else checked
        case Record(fields):
            return _by_name(fields, value, where)
        case TupleOf(items):
            if not isinstance(value, list):
                raise _unfit(kind, value, where)
            return _in_order(tuple((f"[{index}]", item) for index, item in enumerate(items)), value, where)
        case Variant(cases):
            return _variant(kind, dict(cases), value, where)
        case Enum(names):
            return _one_of(kind, names, value, where)
        case Option(payload):
            if value is None:
                return None
            if isinstance(payload, Option):
                return {"some": check(payload, _only(kind, ("some",), value, where)[1], f"{where}.some")}
            return check(payload, value, where)
        case ResultOf(ok, error):
            name, inner = _only(kind, ("ok", "error"), value, where)
            return {name: _payload(ok if name == "ok" else error, inner, f"{where}.{name}")}
        case Flags(names):
            if not isinstance(value, list):
                raise _unfit(kind, value, where)
            given = {_one_of(kind, names, item, f"{where}[{index}]") for index, item in enumerate(value)}
            return [name for name in names if name in given]


def _scalar(name: str, value: Value, where: str) -> Value:
    kind = Scalar(name)
    if name in INTEGERS:
        if type(value) is not int:
            raise _unfit(kind, value, where)
        least, greatest = INTEGERS[name]
        if not least <= value <= greatest:
            raise InvalidTask(f"a number out of the range of {name}, {least} to {greatest}", where)
        return value
    if name in FLOATS:
        if type(value) not in (int, float):
            raise _unfit(kind, value, where)
        try:
            number = float(value)
            struct.pack("<f" if name == "f32" else "<d", number)
        except OverflowError:
            raise InvalidTask(f"a number out of the range of {name}", where) from None
        return number
    if name == "bool" and isinstance(value, bool):
        return value
    if name == "bool" or not isinstance(value, str):
        raise _unfit(kind, value, where)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidTask("a text with lone surrogates", where, "pass valid Unicode") from None
    if name == "char" and len(value) != 1:
        raise InvalidTask(f"a text of {len(value)} characters where one is due", where)
    return value


def _in_order(parts: tuple[tuple[str, Type], ...], value: list[Value], where: str) -> list[Value]:
    if len(value) != len(parts):
        raise InvalidTask(f"{len(value)} values where {len(parts)} are due", where)
    return [
        check(kind, item, f"{where}{name}" if name.startswith("[") else f"{where}.{name}")
        for (name, kind), item in zip(parts, value, strict=True)
    ]


def _by_name(parts: tuple[tuple[str, Type], ...], value: Value, where: str) -> dict[str, Value]:
    if not isinstance(value, Mapping):
        raise _unfit(Record(parts), value, where)
    known = dict(parts)
    for name in value:
        if name not in known:
            raise InvalidTask(f"there is no {str(name)[:80]!r}", where, f"there are {', '.join(known) or 'none'}")
    for name, kind in parts:
        if name not in value and not isinstance(kind, Option):
            raise InvalidTask(f"{name} is missing, {spell(kind)[:_MAX_SPELT]}", where)
    return {name: check(kind, value.get(name), f"{where}.{name}") for name, kind in parts}


def _variant(kind: Variant, cases: Mapping[str, Type | None], value: Value, where: str) -> Value:
    if isinstance(value, str):
        tag, payload = value, None
    elif isinstance(value, Mapping) and "tag" in value and value.keys() <= {"tag", "value"}:
        tag, payload = value["tag"], value.get("value")
    else:
        raise _unfit(kind, value, where)
    _one_of(kind, tuple(cases), tag, where)
    if cases[tag] is None and payload is None:
        return tag
    return {"tag": tag, "value": _payload(cases[tag], payload, f"{where}.value")}


def _payload(kind: Type | None, value: Value, where: str) -> Value:
    if kind is not None:
        return check(kind, value, where)
    if value is not None:
        raise InvalidTask(f"{_name(value)} where nothing is due", where)
    return None


def _one_of(kind: Type, names: tuple[str, ...], value: Value, where: str) -> str:
    if not isinstance(value, str):
        raise _unfit(kind, value, where)
    if value not in names:
        raise InvalidTask(f"there is no {value[:80]!r}", where, f"there are {', '.join(names)[:_MAX_SPELT]}")
    return value


def _only(kind: Type, names: tuple[str, ...], value: Value, where: str) -> tuple[str, Value]:
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, inner),) = value.items()
        if name in names:
            return name, inner
    said = " or ".join(f'{{"{name}": ...}}' for name in names)
    raise _unfit(kind, value, where, f"write {said}")


def _unfit(kind: Type, value: Any, where: str, remedy: str = "") -> InvalidTask:
    return InvalidTask(f"{_name(value)} where {spell(kind)[:_MAX_SPELT]} is due", where, remedy)


def _name(value: Any) -> str:
    return _NAMES.get(type(value), f"a value of type {type(value).__name__}")
