"""Declarations of the Wasmtime C calls that every execution makes, with addresses as plain integers.

Calls that run guest code or unmap its memory release the GIL (``CDLL``); the
others take well under a microsecond and keep it (``PyDLL``).

Sources: wasmtime.h and its parts store.h, instance.h, func.h, trap.h, error.h
(https://docs.wasmtime.dev/c-api/); sizes and offsets come from the ctypes
structures of the wasmtime package, so that they follow its version.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from wasmtime import _ffi as ffi

POINTER: Final = ctypes.c_void_p
SIZE: Final = ctypes.c_size_t
WORD: Final = POINTER
"""A number of 64 bits, in calls that every execution makes: ctypes passes an address in a third of the time."""
QUICK: Final = ctypes.PyDLL(str(ffi.filename))
"""For calls that keep the GIL."""
SLOW: Final = ctypes.CDLL(str(ffi.filename))
"""For calls that release it."""

VALUE_BYTES: Final = ctypes.sizeof(ffi.wasmtime_val_raw_t)
"""Bytes of one argument or result of an unchecked call."""
EXTERN_BYTES: Final = ctypes.sizeof(ffi.wasmtime_extern_t)
EXTERN_OF: Final = ffi.wasmtime_extern_t.of.offset
INSTANCE_BYTES: Final = ctypes.sizeof(ffi.wasmtime_instance_t)
KIND_MEMORY: Final = ffi.WASMTIME_EXTERN_MEMORY.value


def _absent(*_: Any) -> Any:
    raise NotImplementedError("this wasmtime has no such C function")


def declare(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """Return a C function of either library with its types declared."""
    function = getattr(library, name, None)
    if function is None:  # in a version that it is not called in: see `runvisor.actors.wasm.library`
        return _absent
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]  # ctypes has no type for it


store_new: Final = declare(QUICK, "wasmtime_store_new", POINTER, POINTER, POINTER, POINTER)
store_context: Final = declare(QUICK, "wasmtime_store_context", POINTER, POINTER)
store_delete: Final = declare(SLOW, "wasmtime_store_delete", None, POINTER)
store_limiter: Final = declare(QUICK, "wasmtime_store_limiter", None, POINTER, *[WORD] * 5)
set_epoch_deadline: Final = declare(QUICK, "wasmtime_context_set_epoch_deadline", None, POINTER, WORD)
on_epoch: Final = declare(QUICK, "wasmtime_store_epoch_deadline_callback", None, POINTER, POINTER, POINTER, POINTER)
set_fuel: Final = declare(QUICK, "wasmtime_context_set_fuel", POINTER, POINTER, ctypes.c_uint64)
get_fuel: Final = declare(QUICK, "wasmtime_context_get_fuel", POINTER, POINTER, POINTER)
instantiate: Final = declare(SLOW, "wasmtime_instance_pre_instantiate", POINTER, POINTER, POINTER, POINTER, POINTER)
export: Final = declare(
    QUICK, "wasmtime_instance_export_get", ctypes.c_bool, POINTER, POINTER, ctypes.c_char_p, WORD, POINTER
)
call: Final = declare(SLOW, "wasmtime_func_call_unchecked", POINTER, POINTER, POINTER, POINTER, WORD, POINTER)
memory_data: Final = declare(QUICK, "wasmtime_memory_data", POINTER, POINTER, POINTER)
memory_size: Final = declare(QUICK, "wasmtime_memory_data_size", SIZE, POINTER, POINTER)
caller_export: Final = declare(
    QUICK, "wasmtime_caller_export_get", ctypes.c_bool, POINTER, ctypes.c_char_p, SIZE, POINTER
)
caller_context: Final = declare(QUICK, "wasmtime_caller_context", POINTER, POINTER)
trap_new: Final = declare(QUICK, "wasmtime_trap_new", POINTER, ctypes.c_char_p, SIZE)
trap_code: Final = declare(QUICK, "wasmtime_trap_code", ctypes.c_bool, POINTER, POINTER)
trap_message: Final = declare(QUICK, "wasm_trap_message", None, POINTER, POINTER)
trap_delete: Final = declare(QUICK, "wasm_trap_delete", None, POINTER)
error_new: Final = declare(QUICK, "wasmtime_error_new", POINTER, ctypes.c_char_p)
error_message: Final = declare(QUICK, "wasmtime_error_message", None, POINTER, POINTER)
error_delete: Final = declare(QUICK, "wasmtime_error_delete", None, POINTER)
bytes_delete: Final = declare(QUICK, "wasm_byte_vec_delete", None, POINTER)
define_func: Final = declare(
    QUICK,
    "wasmtime_linker_define_func_unchecked",
    POINTER,
    POINTER,
    ctypes.c_char_p,
    SIZE,
    ctypes.c_char_p,
    SIZE,
    POINTER,
    POINTER,
    POINTER,
    POINTER,
)
increment_epoch: Final = declare(QUICK, "wasmtime_engine_increment_epoch", None, POINTER)
"""Move an engine's epoch on by one; takes the engine's address."""

EPOCH_CALLBACK: Final = ctypes.CFUNCTYPE(
    SIZE, POINTER, POINTER, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_uint8)
)
HOST_CALLBACK: Final = ctypes.CFUNCTYPE(SIZE, POINTER, POINTER, POINTER, SIZE)

STACK_OVERFLOW: Final = ffi.wasmtime_trap_code_enum.WASMTIME_TRAP_CODE_STACK_OVERFLOW.value
OUT_OF_FUEL: Final = ffi.wasmtime_trap_code_enum.WASMTIME_TRAP_CODE_OUT_OF_FUEL.value
