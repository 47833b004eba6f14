"""Declarations of the calls of Wasmtime's component API that an execution makes.

As in `runvisor.actors.wasm.capi`: addresses are plain integers, what may run guest
code releases the GIL. Values keep the structures of the wasmtime package, whose
layout follows its version.

Sources: wasmtime/component/{linker,instance,func,val}.h (https://docs.wasmtime.dev/c-api/).
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from wasmtime import _ffi as ffi

from runvisor.actors.wasm.capi import POINTER, QUICK, SIZE, SLOW, declare

Val: Final[Any] = ffi.wasmtime_component_val_t
"""A component value: a kind, and a union of what it may be."""
KIND: Final = {
    name: getattr(ffi, f"WASMTIME_COMPONENT_{name.upper()}").value
    for name in (
        "bool", "s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64", "f32", "f64", "char", "string", "list",
        "record", "tuple", "variant", "enum", "option", "result", "flags",
    )
}  # fmt: skip
VAL_BYTES: Final = ctypes.sizeof(Val)
INSTANCE_BYTES: Final = ctypes.sizeof(ffi.wasmtime_component_instance_t)
FUNC_BYTES: Final = ctypes.sizeof(ffi.wasmtime_component_func_t)

linker_new: Final = declare(QUICK, "wasmtime_component_linker_new", POINTER, POINTER)
linker_delete: Final = declare(QUICK, "wasmtime_component_linker_delete", None, POINTER)
linker_root: Final = declare(QUICK, "wasmtime_component_linker_root", POINTER, POINTER)
stub_unknown: Final = declare(
    QUICK, "wasmtime_component_linker_define_unknown_imports_as_traps", POINTER, POINTER, POINTER
)
"""Have every import that the linker lacks trap when it is called."""
place_delete: Final = declare(QUICK, "wasmtime_component_linker_instance_delete", None, POINTER)
place_add: Final = declare(
    QUICK,
    "wasmtime_component_linker_instance_add_instance",
    POINTER,
    POINTER,
    ctypes.c_char_p,
    SIZE,
    POINTER,
)
place_add_func: Final = declare(
    QUICK,
    "wasmtime_component_linker_instance_add_func",
    POINTER,
    POINTER,
    ctypes.c_char_p,
    SIZE,
    POINTER,
    POINTER,
    POINTER,
)
instantiate: Final = declare(SLOW, "wasmtime_component_linker_instantiate", POINTER, POINTER, POINTER, POINTER, POINTER)
export_index: Final = declare(
    QUICK, "wasmtime_component_get_export_index", POINTER, POINTER, POINTER, ctypes.c_char_p, SIZE
)
export_index_delete: Final = declare(QUICK, "wasmtime_component_export_index_delete", None, POINTER)
get_func: Final = declare(
    QUICK, "wasmtime_component_instance_get_func", ctypes.c_bool, POINTER, POINTER, POINTER, POINTER
)
call: Final = declare(SLOW, "wasmtime_component_func_call", POINTER, POINTER, POINTER, POINTER, SIZE, POINTER, SIZE)
val_delete: Final = declare(QUICK, "wasmtime_component_val_delete", None, POINTER)
list_new: Final = declare(QUICK, "wasmtime_component_vallist_new_uninit", None, POINTER, SIZE)
record_new: Final = declare(QUICK, "wasmtime_component_valrecord_new_uninit", None, POINTER, SIZE)
tuple_new: Final = declare(QUICK, "wasmtime_component_valtuple_new_uninit", None, POINTER, SIZE)
flags_new: Final = declare(QUICK, "wasmtime_component_valflags_new_uninit", None, POINTER, SIZE)
val_new: Final = declare(QUICK, "wasmtime_component_val_new", POINTER, POINTER)
"""Move a value to a place of its own, that what it is put into owns."""
text_new: Final = declare(QUICK, "wasm_byte_vec_new", None, POINTER, SIZE, ctypes.c_char_p)

CALLBACK: Final = ctypes.CFUNCTYPE(
    SIZE, POINTER, POINTER, POINTER, ctypes.POINTER(Val), SIZE, ctypes.POINTER(Val), SIZE
)
"""A host function: its data, the context, the type, arguments, how many, results, how many; returns an error or 0."""
