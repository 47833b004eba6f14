"""Runtimes by name. A third party adds one with an entry point in the group ``runvisor.runtimes``.

The entry point names a function that takes a `PoolSize` and the operator's
`RuntimeSettings` and returns a `Runtime`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final, cast

from runvisor.actors.runtime import PoolSize, Probe, Runtime
from runvisor.actors.settings import RuntimeSettings
from runvisor.policies.errors import ConfigError, SpawnFailed

Factory = Callable[[PoolSize, RuntimeSettings], Runtime]

_DEFAULTS: Final = RuntimeSettings()
_BUILTIN: Final[Mapping[str, str]] = {
    "python": "runvisor.actors.python.runtime:create",
    "v8": "runvisor.actors.v8.runtime:create",
    "wasm": "runvisor.actors.wasm.runtime:create",
    "ebpf": "runvisor.actors.ebpf.runtime:create",
}


def names() -> tuple[str, ...]:
    """Return the names of all runtimes, ours first."""
    return (*_BUILTIN, *(point.name for point in entry_points(group="runvisor.runtimes") if point.name not in _BUILTIN))


def create(name: str, size: PoolSize | None = None, settings: RuntimeSettings = _DEFAULTS) -> Runtime:
    """Return a runtime that has not been started.

    Engine libraries are imported here and not before.

    Args:
        name: One of `names`.
        size: How many instances it keeps.
        settings: What the operator decided.

    Raises:
        ConfigError: No such runtime.
        SpawnFailed: Its engine is not installed.
    """
    target = _BUILTIN.get(name)
    if target is None:
        point = next((p for p in entry_points(group="runvisor.runtimes") if p.name == name), None)
        if point is None:
            raise ConfigError(f"there is no runtime {name!r}", "", f"known: {', '.join(names())}")
        target = point.value
    module, _, attribute = target.partition(":")
    try:
        make = cast("Factory", getattr(import_module(module), attribute))
    except ImportError as error:
        raise SpawnFailed(f"its engine cannot be imported: {error}", name, "install runvisor anew") from None
    return make(size or PoolSize(), settings)


def probe(name: str) -> Probe:
    """Probe a runtime by name; an engine that does not import is a finding, not an error."""
    try:
        return create(name).probe()
    except SpawnFailed as error:
        return Probe(name, False, error.what, error.remedy)
