"""What a component says of itself: the functions that it exports, and what it imports."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import wasmtime
from wasmtime import component as wt
from wasmtime.component import Component

from runvisor.policies.errors import GuestSyntaxError
from runvisor.policies.wit.types import (
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
)

_MAX_FUNCTIONS: Final = 1000
_MAX_PARTS: Final = 20_000
"""Of the types of one component: shared ones count each time, for they can be nested to any size."""
_SCALARS: Final[Mapping[type, str]] = {
    wt.Bool: "bool",
    wt.S8: "s8",
    wt.U8: "u8",
    wt.S16: "s16",
    wt.U16: "u16",
    wt.S32: "s32",
    wt.U32: "u32",
    wt.S64: "s64",
    wt.U64: "u64",
    wt.F32: "f32",
    wt.F64: "f64",
    wt.Char: "char",
    wt.String: "string",
}


@dataclass(frozen=True, slots=True)
class Exports:
    """What can be called, by name, and what cannot, with the reason."""

    functions: Mapping[str, Function]
    others: Mapping[str, str]


def exports_of(component: Component, engine: wasmtime.Engine) -> Exports:
    """Read the types of all that a component exports.

    Args:
        component: Which.
        engine: Its engine.

    Raises:
        GuestSyntaxError: They are too many, or too large.
    """
    functions: dict[str, Function] = {}
    others: dict[str, str] = {}
    reader = _Reader()
    for name, kind in _exported(component, engine):
        if len(functions) + len(others) >= _MAX_FUNCTIONS:
            raise GuestSyntaxError(f"the component exports more than {_MAX_FUNCTIONS} functions", "exports")
        try:
            parameters = tuple((parameter, reader.read(given)) for parameter, given in kind.params)
            functions[name] = Function(name, parameters, reader.read(kind.result) if kind.result else None)
        except _Unsayable as error:
            others[name] = f"it takes or gives {error}"
    return Exports(functions, others)


def _exported(component: Component, engine: wasmtime.Engine) -> Iterator[tuple[str, wt.FuncType]]:
    for name, extern in component.type.exports(engine).items():
        item = extern.ty
        if isinstance(item, wt.FuncType):
            yield name, item
        elif isinstance(item, wt.ComponentInstanceType):
            for inner, part in item.exports(engine).items():
                if isinstance(function := part.ty, wt.FuncType):
                    yield f"{name}#{inner}", function


def check_imports(component: Component, engine: wasmtime.Engine, granted: Mapping[str, Collection[str]]) -> None:
    """See that a component imports nothing but what there is.

    Args:
        component: Which.
        engine: Its engine.
        granted: Names of functions by instance, as `Linker` takes them.

    Raises:
        GuestSyntaxError: It does; names what.
    """
    missing: list[str] = []
    for name, extern in component.type.imports(engine).items():
        item = extern.ty
        if isinstance(item, wt.ComponentInstanceType):
            there = granted.get(name.partition("@")[0], ())
            for inner, part in item.exports(engine).items():
                kind = part.ty
                if not isinstance(kind, wt.ValType) and not (isinstance(kind, wt.FuncType) and inner in there):
                    missing.append(f"{name}#{inner}")
        elif not isinstance(item, wt.ValType) and not (isinstance(item, wt.FuncType) and name in granted.get("", ())):
            missing.append(name)
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise GuestSyntaxError(
            f"the component imports what there is not: {', '.join(missing[:5])[:1000]}{more}",
            f"import {missing[0][:200]}",
            f"there are {', '.join(sorted(name or 'print and sleep' for name in granted))}",
        )


class _Unsayable(Exception):
    """A type that no plain value has."""


class _Reader:
    """Reads types, up to a bound."""

    def __init__(self) -> None:
        self._left = _MAX_PARTS

    def read(self, kind: wt.ValType) -> Type:
        self._left -= 1
        if self._left < 0:
            raise GuestSyntaxError("the types of the component's functions are too large", "exports", "simplify them")
        if (name := _SCALARS.get(type(kind))) is not None:
            return Scalar(name)
        match kind:
            case wt.ListType():
                return ListOf(self.read(kind.element))
            case wt.RecordType():
                return Record(tuple((name, self.read(field)) for name, field in kind.fields))
            case wt.TupleType():
                return TupleOf(tuple(self.read(item) for item in kind.elements))
            case wt.VariantType():
                return Variant(tuple((name, self._maybe(payload)) for name, payload in kind.cases))
            case wt.EnumType():
                return Enum(self._names(kind.names))
            case wt.OptionType():
                return Option(self.read(kind.payload))
            case wt.ResultType():
                return ResultOf(self._maybe(kind.ok), self._maybe(kind.err))
            case wt.FlagsType():
                return Flags(self._names(kind.names))
        if isinstance(kind, wt.OwnType | wt.BorrowType):
            raise _Unsayable("a resource")
        raise _Unsayable(f"a {type(kind).__name__.removesuffix('Type').lower()}")

    def _maybe(self, kind: wt.ValType | None) -> Type | None:
        return None if kind is None else self.read(kind)

    def _names(self, names: list[str]) -> tuple[str, ...]:
        self._left -= len(names)
        return tuple(names)
