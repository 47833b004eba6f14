"""Runtimes by name. A third party adds one with an entry point in the group ``runvisor.runtimes``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final, cast

from runvisor.actors.runtime import PoolSize, Runtime
from runvisor.policies.errors import ConfigError

_BUILTIN: Final[Mapping[str, str]] = {
    "python": "runvisor.actors.python.runtime:PythonRuntime",
    "v8": "runvisor.actors.v8.runtime:V8Runtime",
    "wasm": "runvisor.actors.wasm.runtime:WasmRuntime",
    "ebpf": "runvisor.actors.ebpf.runtime:EbpfRuntime",
}


def names() -> tuple[str, ...]:
    """Return the names of all runtimes, ours first."""
    return (*_BUILTIN, *(point.name for point in entry_points(group="runvisor.runtimes") if point.name not in _BUILTIN))


def create(name: str, size: PoolSize | None = None) -> Runtime:
    """Return a runtime that has not been started.

    Engine libraries are imported here and not before.

    Raises:
        ConfigError: No such runtime.
    """
    target = _BUILTIN.get(name)
    if target is None:
        point = next((p for p in entry_points(group="runvisor.runtimes") if p.name == name), None)
        if point is None:
            raise ConfigError(f"there is no runtime {name!r}", "", f"known: {', '.join(names())}")
        target = point.value
    module, _, attribute = target.partition(":")
    make = cast("Callable[[PoolSize | None], Runtime]", getattr(import_module(module), attribute))
    return make(size)
