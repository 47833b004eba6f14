"""WIT types as plain data.

Source: https://github.com/WebAssembly/component-model/blob/main/design/mvp/WIT.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type without parts, by the name that WIT has for it."""

    name: str


@dataclass(frozen=True, slots=True)
class ListOf:
    """Any number of values of one type."""

    element: Type


@dataclass(frozen=True, slots=True)
class Record:
    """Values by name."""

    fields: tuple[tuple[str, Type], ...]


@dataclass(frozen=True, slots=True)
class TupleOf:
    """Values by position."""

    items: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """One of several cases, each of which may carry a value."""

    cases: tuple[tuple[str, Type | None], ...]


@dataclass(frozen=True, slots=True)
class Enum:
    """One of several names."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """A value, or none."""

    payload: Type


@dataclass(frozen=True, slots=True)
class ResultOf:
    """What came of something: a value of either kind, where it has one."""

    ok: Type | None
    error: Type | None


@dataclass(frozen=True, slots=True)
class Flags:
    """Any of several names."""

    names: tuple[str, ...]


Type: TypeAlias = Scalar | ListOf | Record | TupleOf | Variant | Enum | Option | ResultOf | Flags

INTEGERS: Final[Mapping[str, tuple[int, int]]] = {
    "s8": (-(1 << 7), (1 << 7) - 1),
    "s16": (-(1 << 15), (1 << 15) - 1),
    "s32": (-(1 << 31), (1 << 31) - 1),
    "s64": (-(1 << 63), (1 << 63) - 1),
    "u8": (0, (1 << 8) - 1),
    "u16": (0, (1 << 16) - 1),
    "u32": (0, (1 << 32) - 1),
    "u64": (0, (1 << 64) - 1),
}
"""The least and the greatest of each."""
FLOATS: Final = ("f32", "f64")


@dataclass(frozen=True, slots=True)
class Function:
    """A function that a component exports."""

    name: str
    """``name``, or ``interface#name``."""
    parameters: tuple[tuple[str, Type], ...]
    result: Type | None

    def __str__(self) -> str:
        """Write it as WIT does, with its types spelt out."""
        parameters = ", ".join(f"{name}: {spell(kind)}" for name, kind in self.parameters)
        return f"{self.name}: func({parameters})" + (f" -> {spell(self.result)}" if self.result else "")


def spell(kind: Type | None) -> str:
    """Write a type as WIT does; ``_`` is none.

    Example:
        >>> spell(ListOf(Record((("x", Scalar("f64")), ("name", Option(Scalar("string")))))))
        'list<record { x: f64, name: option<string> }>'
    """
    match kind:
        case None:
            return "_"
        case Scalar(name):
            return name
        case ListOf(element):
            return f"list<{spell(element)}>"
        case Record(fields):
            return f"record {{ {', '.join(f'{name}: {spell(field)}' for name, field in fields)} }}"
        case TupleOf(items):
            return f"tuple<{', '.join(map(spell, items))}>"
        case Variant(cases):
            said = (name if payload is None else f"{name}({spell(payload)})" for name, payload in cases)
            return f"variant {{ {', '.join(said)} }}"
        case Enum(names):
            return f"enum {{ {', '.join(names)} }}"
        case Option(payload):
            return f"option<{spell(payload)}>"
        case ResultOf(ok, error):
            return f"result<{spell(ok)}, {spell(error)}>"
        case Flags(names):
            return f"flags {{ {', '.join(names)} }}"
