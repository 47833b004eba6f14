"""One function compiled for arguments of given types, and calls of it."""

from __future__ import annotations

import builtins
import math
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from types import FunctionType
from typing import Any, Final

from runvisor.actors.python.numeric.engine import SLOT_BYTES, Engine, Halted, compensated_sums
from runvisor.actors.python.numeric.marshal import Transfer, describe
from runvisor.actors.python.numeric.registry import Registry
from runvisor.policies.numeric import wat
from runvisor.policies.numeric.program import Shape, compile_program
from runvisor.policies.numeric.types import Unsupported

_FORMATS: Final = {"int": "q8x", "float": "d8x", "number": "d8xi12x"}
_NARROW: Final = "i12x"
_UNBOUNDED_DEPTH: Final = 1 << 30
_DEPTH_MARGIN: Final = 8
_MISSING: Final = object()
_INT64: Final = range(-(1 << 63), 1 << 63)
_EXACT: Final = 1 << 53


class Specialised:
    """A compiled function for one signature.

    Args:
        engine: Where it runs.
        registry: The functions that may be compiled into it.
        key: Which function.
        signature: The types of the arguments.
        namespace: The globals of the functions.

    Raises:
        Unsupported: It cannot be compiled.
        Halted: The engine refuses it.
    """

    def __init__(
        self, engine: Engine, registry: Registry, key: str, signature: tuple[str, ...], namespace: Mapping[str, Any]
    ) -> None:
        names, values = _names_of(registry, key, namespace)
        compiled = compile_program(registry.trees, key, signature, names, compensated_sums=compensated_sums())
        self._engine = engine
        self._namespace = namespace
        self._shapes = compiled.parameters
        self._globals = compiled.globals
        self._kinds = {name: names[name] for name, _ in compiled.globals}
        self._fixed = [(name, values[name]) for name in values if name not in self._kinds]
        self._recursive = compiled.recursive
        self._result = compiled.result
        shapes = [*compiled.parameters, *(shape for _, shape in compiled.globals)]
        self._packed = struct.Struct("<ii".replace("i", _NARROW) + "".join(_format(shape) for shape in shapes))
        self._unpacked = struct.Struct("<" + _format(compiled.result))
        self._slots = max(self._packed.size, self._unpacked.size) // SLOT_BYTES
        self._run = engine.load(compiled.wat)
        self.is_scalar = all(shape.kind in ("int", "float", "bool") for shape in compiled.parameters)
        """All arguments are numbers, whose Python types alone tell that they fit."""
        self._is_simple = self.is_scalar and not compiled.globals and compiled.result.kind in ("int", "float")
        self.functions = compiled.functions
        self.computing_s = 0.0
        """What the last call took in the compiled code."""

    def is_current(self) -> bool:
        """Whether the globals are what it was compiled for."""
        namespace = self._namespace
        return all(_lookup(namespace, name) is value for name, value in self._fixed)

    def __call__(self, arguments: Iterable[Any]) -> Any:
        """Run; either all effects happen and the result is returned, or none.

        Raises:
            Halted: CPython has to do it.
        """
        depth = sys.getrecursionlimit() - _depth() - _DEPTH_MARGIN if self._recursive else _UNBOUNDED_DEPTH
        if self._is_simple:
            try:
                packed = self._packed.pack(wat.HEAP, depth, *arguments)
            except struct.error:
                raise Halted(wat.REASONS[wat.OVERFLOW]) from None
            return self._unpacked.unpack_from(self._timed(packed))[0]
        transfer = Transfer(self._engine)
        flat: list[Any] = []
        for value, shape in zip(arguments, self._shapes, strict=True):
            _flatten(transfer, value, shape, flat)
        for name, shape in self._globals:
            value = self._namespace.get(name, _MISSING)
            if describe(value) != self._kinds[name]:
                raise Halted("a global of another type")
            _flatten(transfer, value, shape, flat)
        slots = self._timed(self._packed.pack(transfer.top, depth, *flat))
        results = iter(self._unpacked.unpack_from(slots))
        return transfer.commit(lambda: _value(transfer, results, self._result))

    def _timed(self, packed: bytes) -> memoryview:
        began = perf_counter()
        slots = self._run(packed, self._slots)
        self.computing_s = perf_counter() - began
        return slots


def _format(shape: Shape) -> str:
    if shape.kind == "tuple":
        return "".join(map(_format, shape.items))
    return "" if shape.kind == "None" else _FORMATS.get(shape.kind, _NARROW)


def _flatten(transfer: Transfer, value: Any, shape: Shape, flat: list[Any]) -> None:
    match shape.kind:
        case "int":
            if value not in _INT64:
                raise Halted(wat.REASONS[wat.OVERFLOW])
            flat.append(value)
        case "number":
            if type(value) is int and not -_EXACT <= value <= _EXACT:
                raise Halted(wat.REASONS[wat.PRECISION])
            flat += (float(value), type(value) is int)
        case "float" | "bool":
            flat.append(value)
        case _:
            # As the 32 bits of an address, which the packing takes as signed.
            at = transfer.put(value, shape)
            flat.append(at - (1 << 32) if at >> 31 else at)


def _value(transfer: Transfer, raw: Any, shape: Shape) -> Any:
    match shape.kind:
        case "None":
            return None
        case "tuple":
            return tuple(_value(transfer, raw, item) for item in shape.items)
        case "int" | "float":
            return next(raw)
        case "bool":
            return bool(next(raw))
        case "char":
            return chr(next(raw))
        case "number":
            number, is_integer = next(raw), next(raw)
            return int(number) if is_integer else number
        case _:
            return transfer.get(next(raw) & 0xFFFFFFFF, shape)


def _depth() -> int:
    frame, depth = sys._getframe(), 0
    while frame is not None:
        depth += 1
        frame = frame.f_back  # type: ignore[assignment]  # None at the bottom ends the loop
    return depth


def _lookup(namespace: Mapping[str, Any], name: str) -> object:
    value = namespace.get(name, _MISSING)
    return builtins.__dict__.get(name, _MISSING) if value is _MISSING else value


def _names_of(registry: Registry, key: str, namespace: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, object]]:
    """Say what each global name of a function, and of those it calls, is."""
    names: dict[str, str] = {}
    values: dict[str, object] = {}
    pending, seen = [key], {key}
    while pending:
        for name in registry.free_names(pending.pop()):
            if name in names:
                continue
            value = values[name] = _lookup(namespace, name)
            names[name] = kind = _kind(registry, namespace, name, value)
            if kind.startswith("function:") and (callee := kind[9:]) not in seen:
                seen.add(callee)
                pending.append(callee)
    return names, values


def _kind(registry: Registry, namespace: Mapping[str, Any], name: str, value: object) -> str:
    if value is math:
        return "math"
    if isinstance(value, FunctionType):
        key = registry.key_of(value)
        return f"function:{key}" if key is not None and value.__globals__ is namespace else "other"
    function = _MATH.get(value) if callable(value) else None
    if function is not None:
        return f"math:{function}"
    if name not in namespace and callable(value):
        return f"builtin:{name}"
    try:
        return describe(value)
    except Halted:
        return "other"


def _functions_of_math() -> dict[Callable[..., Any], str]:
    return {value: name for name, value in vars(math).items() if callable(value) and not name.startswith("_")}


_MATH: Final = _functions_of_math()
__all__ = ["Specialised", "Unsupported"]
