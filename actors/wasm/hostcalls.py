"""Host functions for guests: Python functions that wasm code calls, in the thread of its run."""

from __future__ import annotations

import ctypes
from typing import Any

from runvisor.actors.wasm import capi
from runvisor.actors.wasm.fastpath import Memory, OutOfBounds, address, raise_if
from runvisor.actors.wasm.publicpath import HostFunction, PublicLinker, define_public, public_memory


def caller_memory(caller: Any) -> Memory:
    """Return the memory of the guest that called a host function.

    Raises:
        OutOfBounds: It exports none.
    """
    if not isinstance(caller, int):
        return public_memory(caller)
    extern = ctypes.create_string_buffer(capi.EXTERN_BYTES)
    if not capi.caller_export(caller, b"memory", 6, extern) or extern.raw[0] != capi.KIND_MEMORY:
        raise OutOfBounds
    return Memory(capi.caller_context(caller), ctypes.addressof(extern) + capi.EXTERN_OF)


def define_function(linker: Any, module: str, name: str, kind: Any, function: HostFunction) -> None:
    """Define a host function in a linker; it and all it refers to live as long as the process.

    Args:
        linker: A `wasmtime.Linker`; one of the public path has it called that way.
        module: The import's module.
        name: The import's name.
        kind: A `wasmtime.FuncType` of numbers that returns nothing or one i32.
        function: What to call; must not raise.
    """
    if isinstance(linker, PublicLinker):
        define_public(linker, module, name, kind, function)
        return

    def enter(_: int | None, caller: int, values: int, count: int) -> int:
        try:
            answer = function(caller, ctypes.string_at(values, count * capi.VALUE_BYTES))
            if answer is not None:
                ctypes.c_int32.from_address(values).value = answer
                return 0
        except BaseException:  # must not unwind into C; the run ends instead
            pass
        return int(capi.trap_new(b"ended by the host", 17))

    callback = capi.HOST_CALLBACK(enter)
    _kept.append(callback)
    raise_if(
        capi.define_func(
            address(linker),
            module.encode(),
            len(module.encode()),
            name.encode(),
            len(name.encode()),
            ctypes.cast(kind.ptr(), capi.POINTER),
            ctypes.cast(callback, capi.POINTER),
            None,
            None,
        ),
        None,
    )


_kept: list[Any] = []
"""Callbacks that C may call; they live as long as the process."""
