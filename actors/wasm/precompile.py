"""The compiler's side of `runvisor.actors.wasm.native_code`: one module to native code, in a jail of its own.

One request, ``precompile`` (code, profile, is_text, is_component), is answered by
``native`` or by ``error``. Nothing of the module runs here.
"""

from __future__ import annotations

import wasmtime
import wasmtime.component

from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm.engines import make_engine
from runvisor.actors.wasm.library import Api
from runvisor.actors.wasm.modules import binary_of, invalid
from runvisor.actors.wasm.profiles import PROFILES
from runvisor.policies.errors import RunvisorError


def precompile(request: Message, api: Api) -> Message:
    """Compile a module, and describe what came of it."""
    try:
        return {"native": _compile(request, api)}
    except RunvisorError as error:
        return {"error": error.to_wire()}


def _compile(request: Message, api: Api) -> bytes:
    is_component: bool = request["is_component"]
    engine = make_engine(PROFILES[request["profile"]], 1, api, is_parallel=is_component)
    try:
        binary = binary_of(request["code"], is_text=request["is_text"], is_component=is_component)
        if is_component:
            return bytes(wasmtime.component.Component(engine, binary).serialize())
        return bytes(wasmtime.Module(engine, binary).serialize())
    except wasmtime.WasmtimeError as error:
        raise invalid(str(error), is_text=request["is_text"]) from None
