"""Inside the engine process: components that somebody sent, and calls of their functions.

See `runvisor.actors.wasm.components.agreement` for the requests. The types come from
the compiled component; the arguments are checked against them before an instance
is made.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from wasmtime.component import Component

from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm.components import capi
from runvisor.actors.wasm.components.agreement import CALL, DESCRIBE, LOAD
from runvisor.actors.wasm.components.calls import answer
from runvisor.actors.wasm.components.imports import Linker
from runvisor.actors.wasm.components.instances import Export, Instance
from runvisor.actors.wasm.components.reflection import check_imports, exports_of
from runvisor.actors.wasm.components.values import Lifting, lower
from runvisor.actors.wasm.components.world import Worlds
from runvisor.actors.wasm.fastpath import Store
from runvisor.actors.wasm.modules import map_component
from runvisor.policies.errors import InvalidTask, OutputLimitExceeded
from runvisor.policies.permissions import MiB
from runvisor.policies.values import Value, pack, unpack
from runvisor.policies.wit.checks import check_arguments
from runvisor.policies.wit.schemas import tool_of
from runvisor.policies.wit.types import Function

if TYPE_CHECKING:
    from runvisor.actors.wasm.engine import EngineLane

_MAX_KEPT: Final = 8
"""Components of each profile: one may hold four descriptors, and a jail has 256."""
_MAX_VALUE_BYTES: Final = 24 * MiB
_MAX_NAMES: Final = 20
_MEMORIES: Final = 1
"""Of one instance, so that its memory is bounded as granted."""


class _Kept:
    """A component that is linked and read, for any number of calls in any thread."""

    def __init__(self, component: Component, engine: Any, worlds: Worlds) -> None:
        functions = worlds.host_functions()
        check_imports(component, engine, functions)
        self.component = component
        self.exports = exports_of(component, engine)
        self.linker = Linker(engine, component, functions)
        weakref.finalize(self.linker, capi.linker_delete, self.linker.address)

    def function(self, name: str) -> Function:
        """Return the function of a name; for an empty name the only one, or the only one outside of interfaces.

        Raises:
            InvalidTask: There is none.
        """
        functions = self.exports.functions
        if not name:
            own = [function for called, function in functions.items() if "#" not in called]
            for candidates in (list(functions.values()), own):
                if len(candidates) == 1:
                    return candidates[0]
        if name in functions:
            return functions[name]
        if name in self.exports.others:
            raise InvalidTask(f"{name} cannot be called: {self.exports.others[name]}", "function")
        there = ", ".join(list(functions)[:_MAX_NAMES])
        what = f"there is no function {name[:200]!r}" if name else f"the component exports {len(functions)} functions"
        raise InvalidTask(what, "function", f"name one of {there}" if there else "export a function")

    def call(self, store: Store, function: Function, arguments: list[Value]) -> bytes:
        """Call a function in a fresh instance; return its packed value.

        Raises:
            Stopped: It did not return.
            OutputLimitExceeded: The value is too large.
        """
        instance = Instance(store, self.linker, self.component)
        interface, _, name = function.name.rpartition("#")
        export = Export(self.component, name, interface)
        given = (capi.Val * len(arguments))()
        try:
            for (_, kind), value, out in zip(function.parameters, arguments, given, strict=True):
                lower(kind, value, out)
            result = capi.Val() if function.result is not None else None
            instance.call(export, ctypes.addressof(given), len(given), result)
        finally:
            export.close()
            for out in given:
                capi.val_delete(ctypes.addressof(out))
        if function.result is None or result is None:
            return pack(None)
        try:
            value = Lifting().lift(function.result, result)
        finally:
            capi.val_delete(ctypes.addressof(result))
        packed = pack(value)
        if len(packed) > _MAX_VALUE_BYTES:
            raise OutputLimitExceeded(
                "the function's value is larger than a reply may be", "value", "return a summary, or return less"
            )
        return packed


class _Components:
    """The components that this process knows, least recently used first out."""

    def __init__(self) -> None:
        self.worlds = Worlds()
        self._lock = threading.Lock()
        self._kept: dict[str, OrderedDict[bytes, _Kept]] = {}

    def load(self, lane: EngineLane, message: Message) -> Message:
        key, profile = message["key"], message["profile"]
        engine = lane.process.cache(profile).engine
        with lane.process.native(key, profile) as fd:
            kept = _Kept(map_component(engine, fd), engine.engine, self.worlds)
        with self._lock:
            of_profile = self._kept.setdefault(profile, OrderedDict())
            of_profile[key] = kept
            while len(of_profile) > _MAX_KEPT:
                of_profile.popitem(last=False)
        return {}

    def call(self, lane: EngineLane, message: Message) -> Message:
        kept = self._get(message)
        if kept is None:
            return {"unknown": True}
        try:
            function = kept.function(message["function"])
            arguments = check_arguments(function, unpack(message["arguments"]))
        except InvalidTask as error:
            return {"refused": error.to_wire()}
        return answer(lane, message, self.worlds, lambda store: kept.call(store, function, arguments), _MEMORIES)

    def describe(self, lane: EngineLane, message: Message) -> Message:
        del lane
        kept = self._get(message)
        if kept is None:
            return {"unknown": True}
        tools = [tool_of(function) for function in kept.exports.functions.values()]
        return {
            "value": pack({"tools": tools, "not_callable": dict(kept.exports.others)}),
            "stdout": b"",
            "stderr": b"",
            "cpu_s": 0.0,
        }

    def _get(self, message: Message) -> _Kept | None:
        with self._lock:
            of_profile = self._kept.get(message["profile"], OrderedDict())
            kept = of_profile.get(message["key"])
            if kept is not None:
                of_profile.move_to_end(message["key"])
            return kept


_components: Final = _Components()
OPERATIONS: Final[Mapping[str, Callable[[EngineLane, Message], Message]]] = {
    LOAD: _components.load,
    CALL: _components.call,
    DESCRIBE: _components.describe,
}
