"""Python values into the engine's memory and back.

Lists are copied in, with one header for each list object, so that two names of
one list stay two names of one list. They are written back only when the call
has ended well.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

from runvisor.actors.python.numeric.engine import Engine, Halted
from runvisor.policies.numeric import wat
from runvisor.policies.numeric.program import Shape

_HEADER: Final = struct.Struct("<IIII")
_SCALARS: Final = {int: "int", float: "float", bool: "bool", str: "str", bytes: "bytes"}
_ELEMENTS: Final = {
    frozenset({int}): "list[int]",
    frozenset({float}): "list[float]",
    frozenset({bool}): "list[bool]",
    frozenset({int, float}): "list[number]",
}
_CODES: Final = {"int": "q", "float": "d"}
_EXACT: Final = 1 << 53
_MAX_DEPTH: Final = 4


def describe(value: object, depth: int = 0) -> str:
    """Return the type of an argument as the compiler spells it.

    Raises:
        Halted: It is of no type that is compiled for.

    Example:
        >>> describe([[1.5], []])
        'list[list[float]]'
    """
    kind = _SCALARS.get(type(value))
    if kind is not None:
        return kind
    if type(value) is not list or depth > _MAX_DEPTH:
        raise Halted(f"an argument of type {type(value).__name__}")
    kinds = frozenset(map(type, value))
    found = _ELEMENTS.get(kinds)
    if found is not None:
        return found
    if not kinds:
        return "list[unknown]"
    if kinds != {list}:
        raise Halted(f"a list of {', '.join(sorted(kind.__name__ for kind in kinds))}")
    return f"list[{describe(list(chain.from_iterable(value)), depth + 1)}]"


class Transfer:
    """The values of one call on their way in and out.

    Args:
        engine: Whose memory; the caller holds its lock.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.top = wat.HEAP
        self._known: dict[int, tuple[int, Shape]] = {}
        self._objects: dict[int, object] = {}
        self._pending: list[tuple[list[Any], list[Any]]] = []

    def put(self, value: Any, shape: Shape) -> int:
        """Copy a string or list in; return its address.

        Raises:
            Halted: It cannot be represented exactly.
        """
        known = self._known.get(id(value))
        if known is not None:
            if known[1] != shape:
                self._share(value, known[0], known[1], shape)
            return known[0]
        data, size = self._encode(value, shape)
        header = self._take(16 + len(data))
        _HEADER.pack_into(self._engine.view, header, header + 16, len(value), len(data) // size, 0)
        self._engine.view[header + 16 : header + 16 + len(data)] = data
        self._known[id(value)] = (header, shape)
        self._objects[header] = value
        return header

    def _share(self, value: Any, header: int, known: Shape, shape: Shape) -> None:
        """Note that a list goes by a second name, through which it may be changed too."""
        if known.layout != shape.layout:
            raise Halted("one list with two types")
        self._known[id(value)] = (header, Shape(shape.kind, shape.items, shape.mutated or known.mutated))
        if shape.items[0].kind == "list":
            for row in value:
                self.put(row, shape.items[0])

    def _take(self, size: int) -> int:
        at = self.top
        self.top = at + (size + 15 & ~15)
        self._engine.reserve(self.top)
        return at

    def _encode(self, value: Any, shape: Shape) -> tuple[bytes | memoryview, int]:
        if shape.kind == "str":
            return value.encode("utf-32-le", "surrogatepass"), 4
        if shape.kind == "bytes":
            return value, 1
        (item,) = shape.items
        match item.kind:
            case "int" | "float":
                try:
                    return memoryview(array(_CODES[item.kind], value)).cast("B"), 8
                except OverflowError:
                    raise Halted(wat.REASONS[wat.OVERFLOW]) from None
            case "bool":
                return bytes(value), 1
            case "number":
                if any(type(x) is int and not -_EXACT <= x <= _EXACT for x in value):
                    raise Halted(wat.REASONS[wat.PRECISION])
                return struct.pack(
                    "<" + "dq" * len(value), *chain.from_iterable((x, type(x) is int) for x in value)
                ), 16
            case _:
                return memoryview(array("I", [self.put(x, item) for x in value])).cast("B"), 4

    def commit(self, result: Callable[[], Any]) -> Any:
        """Read the result, then write changed lists back: all of them, or, on an error, none.

        Args:
            result: Reads the result by `get`.
        """
        fresh: list[tuple[list[Any], list[Any]]] = []
        for header, shape in list(self._known.values()):
            if shape.kind == "list" and shape.mutated:
                old = self._objects[header]
                assert isinstance(old, list)
                fresh.append((old, self._elements(header, shape)))
        value = result()
        for old, new in fresh:
            old[:] = new
        return value

    def get(self, header: int, shape: Shape) -> Any:
        """Return the object at an address: the one that was put there, or a new one."""
        known = self._objects.get(header)
        if known is not None:
            return known
        made: Any = ""
        if shape.kind == "list":
            made = self._objects[header] = []
            made += self._elements(header, shape)
        else:
            data, size, _, _ = _HEADER.unpack_from(self._engine.view, header)
            width = 4 if shape.kind == "str" else 1
            raw = bytes(self._engine.view[data : data + size * width])
            made = raw.decode("utf-32-le", "surrogatepass") if shape.kind == "str" else raw
        return made

    def _elements(self, header: int, shape: Shape) -> list[Any]:
        data, size, _, _ = _HEADER.unpack_from(self._engine.view, header)
        (item,) = shape.items
        view = self._engine.view
        match item.kind:
            case "int":
                return list(view[data : data + 8 * size].cast("q"))
            case "float":
                return list(view[data : data + 8 * size].cast("d"))
            case "bool":
                return list(map(bool, view[data : data + size]))
            case "char":
                return list(map(chr, view[data : data + 4 * size].cast("I")))
            case "number":
                flat = struct.unpack_from("<" + "dq" * size, view, data)
                return [int(x) if tag & 0xFFFFFFFF else x for x, tag in zip(flat[::2], flat[1::2], strict=True)]
            case _:
                return [self.get(at, item) for at in view[data : data + 4 * size].cast("I")]
