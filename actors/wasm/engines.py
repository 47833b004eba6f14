"""The Wasmtime engines of an engine process, and what modules may import there."""

from __future__ import annotations

import os

import wasmtime
from wasmtime import _ffi as ffi

from runvisor.actors.wasm import wasi
from runvisor.actors.wasm.capi import increment_epoch
from runvisor.actors.wasm.fastpath import Frame, Store, address
from runvisor.actors.wasm.library import Api
from runvisor.actors.wasm.profiles import PROFILES, Profile
from runvisor.actors.wasm.publicpath import PublicLinker, PublicStore

AnyStore = Store | PublicStore
"""Both keep the same contract."""


class Engine:
    """One Wasmtime engine with its linker.

    Args:
        executions: Most runs at once; slots for them are reserved ahead (address
            space only), which makes a fresh instance three times as cheap.
        wasi_host: What its modules may import.
        profile: Name of a `Profile`.
        api: Which of wasmtime's faces is used.
    """

    def __init__(self, executions: int, wasi_host: wasi.Wasi, profile: str, api: Api = "c") -> None:
        self.profile = PROFILES[profile]
        self.is_public = api == "public"
        self.engine = make_engine(self.profile, executions, api)
        self.address = 0 if self.is_public else address(self.engine)
        self.linker = PublicLinker(self.engine) if self.is_public else wasmtime.Linker(self.engine)
        self._left_s = wasi_host.deadlines.left_s
        wasi_host.define(self.linker)

    def store(self, frame: Frame, token: int) -> AnyStore:
        """Return a fresh store, without limits yet.

        Args:
            frame: The calling thread's.
            token: What its run is known by in the table of deadlines.
        """
        return PublicStore(self.engine, token, self._left_s) if self.is_public else Store(self.address, frame, token)

    def provides(self, module: str, name: str | None) -> bool:
        """Whether a module may import this."""
        return (module == wasi.MODULE and name in wasi.FUNCTIONS) or (
            module == wasi.WEB_MODULE and name in wasi.WEB_FUNCTIONS
        )

    def move_epoch(self) -> None:
        """Have every store with a reached epoch deadline ask whether it may go on."""
        if self.is_public:
            self.engine.increment_epoch()
        else:
            increment_epoch(self.address)


def make_engine(profile: Profile, executions: int, api: Api, *, is_parallel: bool = False) -> wasmtime.Engine:
    """Make an engine; those of one profile run the native code of each other.

    Args:
        profile: What it may do.
        executions: Most runs at once.
        api: Which of wasmtime's faces is used; the pooling allocator is on one of them only.
        is_parallel: Whether it compiles in several threads.
    """
    config = wasmtime.Config()
    profile.configure(config)
    config.parallel_compilation = is_parallel
    config.memory_init_cow = _can_share_images()
    if api == "c":
        _pool(config, profile, executions)
    return wasmtime.Engine(config)


def _can_share_images() -> bool:
    """Whether initial memories may be shared copy-on-write; else they are copied, to the same effect."""
    try:
        os.close(os.memfd_create("image"))
    except OSError:
        return False
    return True


def _pool(config: wasmtime.Config, profile: Profile, executions: int) -> None:
    """Choose the pooling allocator; not on `wasmtime.Config`, so through the bindings."""
    instances = executions * profile.instances
    pool = ffi.wasmtime_pooling_allocation_config_new()
    try:
        for name, value in (
            ("total_core_instances", instances),
            ("total_memories", executions * profile.memories),
            ("total_tables", instances * profile.tables),
            ("max_memories_per_module", 1),
            ("max_tables_per_module", profile.tables),
            ("max_memory_size", profile.memory_bytes),
            ("table_elements", profile.table_elements),
            ("max_core_instance_size", profile.instance_bytes),
            ("linear_memory_keep_resident", profile.keep_bytes),
            ("table_keep_resident", profile.keep_bytes),
        ):
            getattr(ffi, f"wasmtime_pooling_allocation_config_{name}_set")(pool, value)
        if profile.has_components:
            for name, value in (
                ("total_component_instances", executions),
                ("max_component_instance_size", profile.instance_bytes),
                ("max_core_instances_per_component", profile.instances),
                ("max_memories_per_component", profile.memories),
                ("max_tables_per_component", profile.instances * profile.tables),
            ):
                getattr(ffi, f"wasmtime_pooling_allocation_config_{name}_set")(pool, value)
        ffi.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    finally:
        ffi.wasmtime_pooling_allocation_config_delete(pool)
