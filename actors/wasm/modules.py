"""Compiled modules of one engine process: made once per content, linked ahead, kept within bounds.

Only numbers cross the fast path, so only functions of numbers are noted as
callable; every other export stays out of reach.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections import OrderedDict
from ctypes import POINTER, byref, cast
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import wasmtime
import wasmtime.component
from wasmtime import _ffi as ffi

from runvisor.actors.wasm import wasi
from runvisor.actors.wasm.agreement import MAX_MODULE_BYTES
from runvisor.actors.wasm.components.agreement import MAGIC as COMPONENT_MAGIC
from runvisor.actors.wasm.engines import Engine
from runvisor.actors.wasm.fastpath import VALUE_BYTES, address
from runvisor.policies.errors import GuestCrashed, GuestSyntaxError, MemoryLimitExceeded
from runvisor.policies.permissions import KiB, MiB

T = TypeVar("T", wasmtime.Module, wasmtime.component.Component)

MAX_EXPORTS: Final = 10_000
PAGE_BYTES: Final = 64 * KiB
_MAX_CACHED_BYTES: Final = 64 * MiB
_MAX_MESSAGE: Final = 4000
_MAX_NAMES_BYTES: Final = 1 * MiB

_NUMBERS: Final = [(name, ffi.wasm_valtype_new(kind)) for kind, name in enumerate(("i32", "i64", "f32", "f64"))]
"""Types of numbers; they live as long as the process."""
_FUNC: Final = 0
_MEMORY: Final = 3
_WAT_PLACE: Final = re.compile(r"<anon>:(\d+:\d+)")
_OFFSET: Final = re.compile(r"(?:\(at offset |at offset )(0x[0-9a-fA-F]+|\d+)")


@dataclass(frozen=True, slots=True)
class Function:
    """An exported function of numbers, as the fast path calls it."""

    name: bytes
    parameters: tuple[str, ...]
    """``i32`` ... ``f64`` each."""
    results: tuple[str, ...]
    argument_bytes: int
    result_bytes: int
    slots: int
    """The larger of the numbers of parameters and results."""


@dataclass(frozen=True, slots=True, eq=False)
class CompiledModule:
    """A module that is compiled and linked; makes any number of instances, in any thread."""

    pre: Any
    """The linked module as a store of its engine takes it; valid while this object lives."""
    functions: dict[str, Function]
    """Exported functions of numbers."""
    other_functions: tuple[str, ...]
    """Exported functions that take or give something else."""
    uses_wasi: bool
    is_reactor: bool
    """It exports ``_initialize``, to be called before any other function."""
    minimum_bytes: int
    """Size of the linear memory that it starts with."""
    size: int
    """Bytes of the module, or of its native code if that was made elsewhere."""
    owner: wasmtime.InstancePre

    def to_wire(self) -> dict[str, Any]:
        """Return what the host needs to know of it."""
        return {
            "functions": {name: [list(f.parameters), list(f.results)] for name, f in self.functions.items()},
            "other_functions": list(self.other_functions),
            "uses_wasi": self.uses_wasi,
            "minimum_bytes": self.minimum_bytes,
        }


class ModuleCache:
    """The modules that an engine process knows, least recently used first out.

    Args:
        engine: What compiles and links them.
        max_modules: Each holds a descriptor, for the pages that its instances begin with; a jail has 256.
    """

    def __init__(self, engine: Engine, max_modules: int = 32) -> None:
        self.engine = engine
        self._max_modules = max_modules
        self._lock = threading.Lock()
        self._modules: OrderedDict[bytes, CompiledModule] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes) -> CompiledModule | None:
        """Return a module by its key, or None if it was never compiled or is forgotten.

        Takes no lock: each of the two steps is one call into C, and a module that is
        dropped between them is still whole.
        """
        module = self._modules.get(key)
        if module is not None:
            with contextlib.suppress(KeyError):
                self._modules.move_to_end(key)
        return module

    def compile(self, key: bytes, code: bytes, *, is_text: bool) -> CompiledModule:
        """Compile, link and keep a module.

        Args:
            key: What to know it by; the caller chooses it by content.
            code: A wasm binary, or WAT text.
            is_text: Whether it is WAT.

        Raises:
            GuestSyntaxError: It is not a valid module, or imports what there is not.
            MemoryLimitExceeded: It is larger than a module may be.
        """
        return self._keep(key, compile_module(self.engine, code, is_text=is_text))

    def load(self, key: bytes, native: int) -> CompiledModule:
        """Link and keep a module that was compiled elsewhere for this profile.

        Args:
            key: What to know it by; the caller chooses it by content.
            native: Descriptor of its native code, which is trusted.

        Raises:
            GuestSyntaxError: It imports what there is not.
        """
        return self._keep(key, link_module(self.engine, map_native(self.engine, native), os.fstat(native).st_size))

    def _keep(self, key: bytes, module: CompiledModule) -> CompiledModule:
        with self._lock:
            self._drop(key)
            self._modules[key] = module
            self._bytes += module.size
            while len(self._modules) > 1 and self._is_over():
                self._drop(next(iter(self._modules)))
        return module

    def forget(self, key: bytes) -> None:
        """Drop a module; runs in progress keep it until they end."""
        with self._lock:
            self._drop(key)

    def _is_over(self) -> bool:
        return len(self._modules) > self._max_modules or self._bytes > _MAX_CACHED_BYTES

    def _drop(self, key: bytes) -> None:
        module = self._modules.pop(key, None)
        if module is not None:
            self._bytes -= module.size


def compile_module(engine: Engine, code: bytes, *, is_text: bool) -> CompiledModule:
    """Compile and link one module; see `ModuleCache.compile`."""
    if len(code) > MAX_MODULE_BYTES:
        raise MemoryLimitExceeded(
            f"a module of {len(code)} bytes is larger than {MAX_MODULE_BYTES}", "code", "strip it, or split it"
        )
    try:
        binary = binary_of(code, is_text=is_text)
        module = wasmtime.Module(engine.engine, binary)
    except wasmtime.WasmtimeError as error:
        raise invalid(str(error), is_text=is_text) from None
    return link_module(engine, module, len(binary))


def binary_of(code: bytes, *, is_text: bool, is_component: bool = False) -> bytes:
    """Return the wasm binary of a module or a component.

    Raises:
        GuestSyntaxError: It is none, or the other of the two.
        WasmtimeError: It is no WAT text.
    """
    binary = bytes(wasmtime.wat2wasm(code)) if is_text else code
    if not binary.startswith(b"\0asm"):
        raise GuestSyntaxError(
            "the code is not a WebAssembly module: it does not begin with '\\0asm'",
            "byte 0",
            "pass the bytes of a .wasm file, or use the language 'wat' for text",
        )
    if binary.startswith(COMPONENT_MAGIC) != is_component:
        kinds = ("core module", "component", "wasm") if is_component else ("component", "core module", "component")
        raise GuestSyntaxError("the code is a {}, not a {}".format(*kinds), "byte 4", f"use the language {kinds[2]!r}")
    return binary


def map_native(engine: Engine, native: int) -> wasmtime.Module:
    """Map the native code of a module; runs as part of this process, so it must be ours.

    Args:
        engine: Of the profile that it was made for.
        native: Descriptor of a file that holds it.

    Raises:
        GuestCrashed: It is not such code: the compiler that made it was led astray.
    """
    return _map(engine, native, wasmtime.Module)


def map_component(engine: Engine, native: int) -> wasmtime.component.Component:
    """Map the native code of a component; see `map_native`."""
    return _map(engine, native, wasmtime.component.Component)


def _map(engine: Engine, native: int, kind: type[T]) -> T:
    try:
        try:
            return kind.deserialize_file(engine.engine, f"/proc/self/fd/{native}")
        except wasmtime.WasmtimeError:  # where a process may not see its own descriptors
            return kind.deserialize(engine.engine, os.pread(native, os.fstat(native).st_size, 0))
    except wasmtime.WasmtimeError as error:
        raise GuestCrashed(
            "its native code cannot be loaded", "compile", "", {"log": str(error)[:_MAX_MESSAGE]}
        ) from None


def link_module(engine: Engine, module: wasmtime.Module, size: int, *, is_ours: bool = False) -> CompiledModule:
    """Link a module ahead.

    Args:
        engine: What it was compiled for.
        module: What to link.
        size: Bytes to count for it.
        is_ours: Whether it may import all that the linker has.

    Raises:
        GuestSyntaxError: It imports what there is not.
    """
    missing = [f"{i.module}.{i.name}" for i in module.imports if not (is_ours or engine.provides(i.module, i.name))]
    if missing:
        raise GuestSyntaxError(
            f"the module imports what there is not: {', '.join(missing[:5])}"
            + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""),
            f"import {missing[0]}",
            f"only functions of {wasi.MODULE} and {wasi.WEB_MODULE} can be imported",
        )
    try:
        pre = engine.linker.instantiate_pre(module)
    except wasmtime.WasmtimeError as error:
        raise invalid(str(error), is_text=False) from None
    functions, others, minimum_bytes = _exports(module)
    return CompiledModule(
        pre=pre if engine.is_public else address(pre),
        functions=functions,
        other_functions=tuple(others),
        uses_wasi=bool(module.imports),
        is_reactor="_initialize" in functions and "_start" not in functions and not functions["_initialize"].slots,
        minimum_bytes=minimum_bytes,
        size=size,
        owner=pre,
    )


def invalid(message: str, *, is_text: bool) -> GuestSyntaxError:
    """Make one sentence and a place of what Wasmtime says."""
    message = message[:_MAX_MESSAGE]
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    where = ""
    if match := _WAT_PLACE.search(message):
        where = match[1]
    elif match := _OFFSET.search(message):
        where = f"byte {int(match[1], 0)}"
    causes = lines[lines.index("Caused by:") + 1 :] if "Caused by:" in lines else lines[:1]
    what = re.sub(r"^\d+: ", "", causes[-1]) if causes else "it does not compile"
    what = re.sub(r"\s*\(at offset [^)]*\)$|^Invalid input WebAssembly code at offset \d+: ", "", what)
    kind = "text" if is_text and "<anon>" in message else "module"
    return GuestSyntaxError(f"not a valid WebAssembly {kind}: {what}", where, "", {"log": message})


def _exports(module: wasmtime.Module) -> tuple[dict[str, Function], list[str], int]:
    """Read the export types, no more of them than `MAX_EXPORTS`.

    Through the bindings, because the package's own properties build an object for
    each and cannot name a v128.
    """
    functions: dict[str, Function] = {}
    others: list[str] = []
    minimum_bytes = 0
    room = _MAX_NAMES_BYTES
    vector = ffi.wasm_exporttype_vec_t(0, None)
    ffi.wasmtime_module_exports(module.ptr(), byref(vector))
    try:
        if vector.size > MAX_EXPORTS:
            raise GuestSyntaxError(
                f"the module exports {vector.size} items", "exports", f"export at most {MAX_EXPORTS}"
            )
        for index in range(vector.size):
            item = vector.data[index]
            name_bytes = ffi.wasm_exporttype_name(item).contents
            room -= name_bytes.size
            if room < 0:
                raise GuestSyntaxError("the names of the module's exports are too long", "exports", "shorten them")
            name = ffi.to_str(name_bytes) if name_bytes.size else ""
            kind = ffi.wasm_exporttype_type(item)
            sort = int(ffi.wasm_externtype_kind(kind))
            if sort == _FUNC:
                function = _function(name, ffi.wasm_externtype_as_functype(kind))
                if function is None:
                    others.append(name)
                else:
                    functions[name] = function
            elif sort == _MEMORY:
                memory = cast(ffi.wasm_externtype_as_memorytype(kind), POINTER(ffi.wasm_memorytype_t))
                minimum_bytes = ffi.wasmtime_memorytype_minimum(memory) * PAGE_BYTES
    finally:
        ffi.wasm_exporttype_vec_delete(byref(vector))
    return functions, others, minimum_bytes


def _function(name: str, kind: Any) -> Function | None:
    """Return what the type says, or None if a parameter or result is not a number."""
    sides: list[tuple[str, ...]] = []
    for side in (ffi.wasm_functype_params(kind), ffi.wasm_functype_results(kind)):
        vector = side.contents
        kinds = [_number(vector.data[index]) for index in range(vector.size)]
        if None in kinds:
            return None
        sides.append(tuple(kind for kind in kinds if kind is not None))
    parameters, results = sides
    return Function(
        name=name.encode(),
        parameters=parameters,
        results=results,
        argument_bytes=len(parameters) * VALUE_BYTES,
        result_bytes=len(results) * VALUE_BYTES,
        slots=max(len(parameters), len(results)),
    )


def _number(kind: Any) -> str | None:
    """Return the name of a type of numbers, or None for another.

    By comparing: asked what kind it is, the library aborts the process for a v128
    or a reference that its C API has no name for.
    """
    return next((name for name, number in _NUMBERS if ffi.wasmtime_wasm_valtype_equal(kind, number)), None)
