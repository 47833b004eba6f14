"""The Wasmtime engines of an engine process, and what modules may be and import there.

Everything that a sandboxed calculation does not need is off: threads and shared
memory (a wait on one is out of the epoch's reach), garbage collection,
exceptions, components, several memories. NaNs are canonical and
relaxed SIMD is deterministic, so that an answer does not depend on the machine.
"""

from __future__ import annotations

import os
from typing import Final, Literal

import wasmtime
from wasmtime import _ffi as ffi

from runvisor.actors.wasm import wasi
from runvisor.actors.wasm.capi import increment_epoch
from runvisor.actors.wasm.fastpath import address
from runvisor.policies.permissions import GiB, KiB, MiB

MAX_MEMORY_BYTES: Final = 4 * GiB
"""The most that 32-bit addresses reach."""
TABLE_ELEMENTS: Final = 100_000
"""Most elements of a table (8 bytes each)."""
TABLES: Final = 4
"""Most tables of a module."""
STACK_BYTES: Final = 1 * MiB
"""The call stack of guest code; a run that exhausts it traps."""
_INSTANCE_BYTES: Final = 1 * MiB
_KEEP_BYTES: Final = 64 * KiB
"""Of each freed memory, so much is zeroed in place instead of given back to the kernel."""
_OFF: Final = (
    "wasm_threads",
    "shared_memory",
    "wasm_gc",
    "gc_support",
    "wasm_function_references",
    "wasm_exceptions",
    "wasm_stack_switching",
    "wasm_component_model",
    "wasm_memory64",
    "wasm_multi_memory",
    "wasm_custom_page_sizes",
    "wasm_wide_arithmetic",
)


Profile = Literal["plain", "metered", "record"]
"""What an engine does beyond the plain one: count instructions, or address with 64 bits.

Record programs get 64 bits because the kernel has them: a ``long``, a ``sizeof`` and
a pointer are then as wide here as there, and no answer can differ for it.
"""


class Engine:
    """One Wasmtime engine with its linker.

    Args:
        instances: Most runs at once; slots for them are reserved ahead (address
            space only), which makes a fresh instance three times as cheap.
        wasi_host: What its modules may import.
        profile: See `Profile`.
    """

    def __init__(self, instances: int, wasi_host: wasi.Wasi, profile: Profile) -> None:
        config = wasmtime.Config()
        for feature in _OFF:
            setattr(config, feature, False)
        config.wasm_relaxed_simd_deterministic = True
        config.cranelift_nan_canonicalization = True
        config.epoch_interruption = True
        config.consume_fuel = profile == "metered"
        config.wasm_memory64 = profile == "record"
        config.max_wasm_stack = STACK_BYTES
        config.parallel_compilation = False
        config.memory_init_cow = _can_share_images()
        _pool(config, instances)
        self.engine = wasmtime.Engine(config)
        self.address = address(self.engine)
        self.linker = wasmtime.Linker(self.engine)
        wasi_host.define(self.linker)

    def provides(self, module: str, name: str | None) -> bool:
        """Whether a module may import this."""
        return module == wasi.MODULE and name in wasi.FUNCTIONS

    def move_epoch(self) -> None:
        """Have every store with a reached epoch deadline ask whether it may go on."""
        increment_epoch(self.address)


def _can_share_images() -> bool:
    """Whether initial memories may be shared copy-on-write; else they are copied, to the same effect."""
    try:
        os.close(os.memfd_create("image"))
    except OSError:
        return False
    return True


def _pool(config: wasmtime.Config, instances: int) -> None:
    """Choose the pooling allocator; not on `wasmtime.Config`, so through the bindings."""
    pool = ffi.wasmtime_pooling_allocation_config_new()
    try:
        ffi.wasmtime_pooling_allocation_config_total_core_instances_set(pool, instances)
        ffi.wasmtime_pooling_allocation_config_total_memories_set(pool, instances)
        ffi.wasmtime_pooling_allocation_config_total_tables_set(pool, instances * TABLES)
        ffi.wasmtime_pooling_allocation_config_max_memories_per_module_set(pool, 1)
        ffi.wasmtime_pooling_allocation_config_max_tables_per_module_set(pool, TABLES)
        ffi.wasmtime_pooling_allocation_config_max_memory_size_set(pool, MAX_MEMORY_BYTES)
        ffi.wasmtime_pooling_allocation_config_table_elements_set(pool, TABLE_ELEMENTS)
        ffi.wasmtime_pooling_allocation_config_max_core_instance_size_set(pool, _INSTANCE_BYTES)
        ffi.wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, _KEEP_BYTES)
        ffi.wasmtime_pooling_allocation_config_table_keep_resident_set(pool, _KEEP_BYTES)
        ffi.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    finally:
        ffi.wasmtime_pooling_allocation_config_delete(pool)
