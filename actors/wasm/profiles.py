"""What the Wasmtime engines of an engine process may do, by name.

A module is compiled for one profile, and runs in the engine of that profile only.
Everything that a sandboxed calculation does not need is off: threads and shared
memory (a wait on one is out of the epoch's reach), garbage collection,
exceptions, components, several memories. NaNs are canonical and relaxed SIMD is
deterministic, so that an answer does not depend on the machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from runvisor.policies.errors import ConfigError
from runvisor.policies.permissions import GiB, KiB, MiB

MAX_MEMORY_BYTES: Final = 4 * GiB
"""The most that 32-bit addresses reach."""
TABLE_ELEMENTS: Final = 100_000
"""Most elements of a table (8 bytes each)."""
TABLES: Final = 4
"""Most tables of a module."""
STACK_BYTES: Final = 1 * MiB
"""The call stack of guest code; a run that exhausts it traps."""
_RECIPE: Final = "1"
"""Raise it when engines are configured differently in a way that no field below tells."""
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


@dataclass(frozen=True, slots=True)
class Profile:
    """How one engine is configured, and the room that each instance in it has.

    The room is address space until it is touched. An image (see
    `runvisor.actors.wasm.image`) gets a profile of its own, whose engine and
    linker no guest's module shares.

    Example:
        >>> PROFILES["metered"].counts_instructions
        True
        >>> PROFILES["plain"].fingerprint() == PROFILES["metered"].fingerprint()
        False
    """

    name: str
    counts_instructions: bool = False
    """Runs on fuel: each instruction takes from a budget, at about twice the time."""
    is_wide: bool = False
    """Has 64-bit addresses, as the kernel has: a ``long`` and a pointer are then as wide as there."""
    has_components: bool = False
    """Runs components too, of at most ``instances`` core modules each."""
    instances: int = 1
    """Most core instances of one execution."""
    memories: int = 1
    """Most linear memories of one execution."""
    memory_bytes: int = MAX_MEMORY_BYTES
    """Largest linear memory."""
    table_elements: int = TABLE_ELEMENTS
    tables: int = TABLES
    """Most tables of one core instance."""
    instance_bytes: int = 1 * MiB
    """Room for an instance's own record: its globals, exports and functions."""
    keep_bytes: int = 64 * KiB
    """Of each freed memory, so much is restored in place instead of given back to the kernel."""
    stack_bytes: int = STACK_BYTES
    """The call stack of guest code."""

    def fingerprint(self) -> str:
        """Name all that decides whether native code made for this profile may run here."""
        return hashlib.sha256(f"{_RECIPE} {self!r} {_platform()}".encode()).hexdigest()

    def configure(self, config: Any) -> None:
        """Set what of a `wasmtime.Config` changes the native code.

        Raises:
            ConfigError: This wasmtime has no switch for a feature that is to be off.
        """
        for feature in _OFF:
            if not hasattr(type(config), feature):
                raise ConfigError(f"this wasmtime has no switch for {feature}", "wasmtime", "install a tested version")
            setattr(config, feature, False)
        config.wasm_relaxed_simd_deterministic = True
        config.cranelift_nan_canonicalization = True
        config.epoch_interruption = True
        config.consume_fuel = self.counts_instructions
        config.wasm_memory64 = self.is_wide
        config.wasm_component_model = self.has_components
        if self.stack_bytes > STACK_BYTES:
            from wasmtime import _ffi as ffi

            # Must be larger, although nothing here runs on such a stack.
            ffi.wasmtime_config_async_stack_size_set(config.ptr(), self.stack_bytes + STACK_BYTES)
        config.max_wasm_stack = self.stack_bytes
        config.parallel_compilation = False


def _components(name: str, *, counts_instructions: bool = False, keep_bytes: int = 1 * MiB) -> Profile:
    return Profile(
        name,
        counts_instructions,
        has_components=True,
        instances=64,
        memories=4,
        instance_bytes=4 * MiB,
        stack_bytes=4 * MiB,
        keep_bytes=keep_bytes,
    )


PROFILES: Final = {
    profile.name: profile
    for profile in (
        Profile("plain"),
        Profile("metered", counts_instructions=True),
        Profile("record", is_wide=True),
        _components("component"),
        _components("component-metered", counts_instructions=True),
        # As much as a task writes to here and there: a page fault costs more than to copy ten pages.
        _components("cpython", keep_bytes=16 * MiB),
        _components("cpython-metered", counts_instructions=True, keep_bytes=16 * MiB),
        Profile("quickjs", keep_bytes=2560 * KiB, stack_bytes=16 * MiB),
        Profile("quickjs-metered", counts_instructions=True, keep_bytes=2560 * KiB, stack_bytes=16 * MiB),
    )
}
"""Every profile there is; one for images is added here."""
MAX_STACK_BYTES: Final = max(profile.stack_bytes for profile in PROFILES.values())


@cache
def _platform() -> str:
    """Name the library and the processor: native code is made for both."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{version('wasmtime')} {hashlib.sha256(features.encode()).hexdigest()}"
