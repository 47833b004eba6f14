"""What a component may import: host functions of ours in a linker; whatever else it imports traps when called.

A function of ours reads its arguments from, and writes its result to, component
values; an exception that it raises ends the run, and never unwinds into C.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, Final

import wasmtime
from wasmtime.component import Component

from runvisor.actors.wasm import capi as core
from runvisor.actors.wasm.components import capi
from runvisor.actors.wasm.fastpath import address, raise_if

HostFunction = Callable[..., Any]
"""Takes the arguments as `read` gives them, and returns what `write` takes, or None."""

_NO_FINALIZER: Final = None


class Linker:
    """The imports of one component. Lives as long as its engine.

    Args:
        engine: The engine of the component.
        component: What is to be linked.
        functions: Host functions by instance, without its version (``wasi:clocks/wall-clock``; empty for
            the world itself), and name. Those that the component does not import are left out.

    Raises:
        Stopped: They do not fit what it imports.
    """

    def __init__(
        self, engine: wasmtime.Engine, component: Component, functions: Mapping[str, Mapping[str, HostFunction]]
    ) -> None:
        self._callbacks: list[Any] = []
        self.address: int = capi.linker_new(address(engine))
        imported = component.type.imports(engine)
        root = capi.linker_root(self.address)
        try:
            self._define(root, {n: f for n, f in functions.get("", {}).items() if n in imported})
            for name in imported:
                wanted = functions.get(name.partition("@")[0])
                if wanted and ":" in name:
                    place = core.POINTER()
                    text = name.encode()
                    raise_if(capi.place_add(root, text, len(text), ctypes.byref(place)), None)
                    try:
                        self._define(place.value or 0, wanted)
                    finally:
                        capi.place_delete(place)
        finally:
            capi.place_delete(root)
        raise_if(capi.stub_unknown(self.address, address(component)), None)

    def _define(self, place: int, functions: Mapping[str, HostFunction]) -> None:
        for name, function in functions.items():
            callback = _callback(function)
            self._callbacks.append(callback)
            text = name.encode()
            pointer = ctypes.cast(callback, core.POINTER)
            raise_if(capi.place_add_func(place, text, len(text), pointer, None, _NO_FINALIZER), None)


class Ended(Exception):
    """Raised by a host function: the run is over."""


def _callback(function: HostFunction) -> Any:
    def call(_data: Any, _context: Any, _kind: Any, arguments: Any, count: int, results: Any, due: int) -> int:
        try:
            result = function(*[read(arguments[index]) for index in range(count)])
            if due:
                write(results[0], result)
            return 0
        except BaseException as error:  # must not unwind into C
            return int(core.error_new(b"the run has ended" if isinstance(error, Ended) else b"a host function failed"))

    return capi.CALLBACK(call)


def read(value: Any) -> Any:
    """Return a number, truth value or text; other kinds are for functions that nobody defines here."""
    kind = value.kind
    if kind == capi.KIND["string"]:
        return ctypes.string_at(value.of.string.data, value.of.string.size).decode(errors="replace")
    return getattr(value.of, _FIELDS[kind])


def write(value: Any, result: Any) -> None:
    """Write a result: `U64`, `U32`, bytes as a list of u8, or a mapping of `U64` and `U32` as a record."""
    if isinstance(result, U64 | U32):
        value.kind = capi.KIND["u64" if isinstance(result, U64) else "u32"]
        setattr(value.of, "u64" if isinstance(result, U64) else "u32", int(result))
    elif isinstance(result, bytes):
        value.kind = capi.KIND["list"]
        capi.list_new(ctypes.addressof(value.of.list), len(result))
        ctypes.memmove(value.of.list.data, b"".join(map(_U8.__getitem__, result)), len(result) * capi.VAL_BYTES)
    elif isinstance(result, Mapping):
        value.kind = capi.KIND["record"]
        capi.record_new(ctypes.addressof(value.of.record), len(result))
        for index, (name, part) in enumerate(result.items()):
            entry = value.of.record.data[index]
            text = name.encode()
            capi.text_new(ctypes.addressof(entry.name), len(text), text)
            write(entry.val, part)
    elif isinstance(result, list):
        value.kind = capi.KIND["list"]
        capi.list_new(ctypes.addressof(value.of.list), len(result))
        for index, part in enumerate(result):
            write(value.of.list.data[index], part)
    else:
        raise TypeError(type(result).__name__)


class U64(int):
    """A number that is written as 64 bits."""


class U32(int):
    """A number that is written as 32 bits."""


def _u8(number: int) -> bytes:
    value = capi.Val()
    value.kind, value.of.u8 = capi.KIND["u8"], number
    return bytes(value)


_U8: Final = tuple(map(_u8, range(256)))
"""A list of bytes is a value of 32 bytes for each."""
_FIELDS: Final = {
    capi.KIND[name]: field
    for name, field in (
        ("bool", "boolean"), ("u8", "u8"), ("u16", "u16"), ("u32", "u32"), ("u64", "u64"), ("s8", "s8"),
        ("s16", "s16"), ("s32", "s32"), ("s64", "s64"), ("f32", "f32"), ("f64", "f64"), ("char", "character"),
    )
}  # fmt: skip
