"""Inside the engine process: runs one Python task in a fresh instance of the image.

The request ``python`` (image, profile, task, timeout_s, memory_bytes, output_bytes,
is_deterministic; fuel where instructions are counted, follow where output is sent on
as it comes) is answered with ``value`` or ``error``, and ``stdout``, ``stderr``,
``cpu_s`` and ``instructions``. ``task`` is the text for the interpreter, see
`runvisor.actors.wasm.cpython.messages`; what the interpreter says is hostile.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from wasmtime.component import Component

from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm.components.failures import explain_failure
from runvisor.actors.wasm.components.imports import HostFunction, Linker
from runvisor.actors.wasm.components.instances import Export, Instance
from runvisor.actors.wasm.components.world import Surroundings, Worlds
from runvisor.actors.wasm.fastpath import Stopped
from runvisor.actors.wasm.live_output import LiveOutput
from runvisor.actors.wasm.profiles import MAX_MEMORY_BYTES, PROFILES
from runvisor.actors.wasm.wasi.deterministic import Deterministic
from runvisor.policies import errors
from runvisor.policies.permissions import MiB
from runvisor.policies.values import pack

if TYPE_CHECKING:
    from runvisor.actors.wasm.engine import EngineLane

_MAX_REPLY_BYTES: Final = 24 * MiB
_MAX_TEXT: Final = 64 * 1024
_SAYABLE: Final = ("GuestException", "GuestSyntaxError", "UnserializableValue")


class _Linked:
    """An image with what it may import, made when it first runs."""

    def __init__(self, component: Component, engine: Any, worlds: Worlds) -> None:
        own: Mapping[str, HostFunction] = {
            "print": lambda to, text: worlds.present().print(to, text),
            "sleep": lambda seconds: worlds.present().sleep(seconds),
        }
        self.component = component
        self.linker = Linker(engine, component, {"": own, **worlds.functions()})
        self.run = Export(component, "run")


_worlds: Final = Worlds()
_linked: Final[dict[Component, _Linked]] = {}
_linking: Final = threading.Lock()


def _run(lane: EngineLane, message: Message) -> Message:
    linked = _link(lane, message)
    profile = PROFILES[message["profile"]]
    store = lane.store(profile.name)
    fuel: int | None = message.get("fuel")
    memory_bytes = min(message["memory_bytes"], MAX_MEMORY_BYTES)
    limits = {"instances": profile.instances, "memories": profile.memories}
    store.limit(memory_bytes, profile.table_elements, profile.instances, fuel, **limits)
    deadlines = lane.process.deadlines
    surroundings = Surroundings(store.token, deadlines, message["output_bytes"])
    if message["is_deterministic"]:
        surroundings.ambient = Deterministic()
    live = LiveOutput(surroundings, lane.emit, lane.process.flusher) if message.get("follow") else None
    reply: Message = {}
    began = time.thread_time()
    deadlines.begin(store.token, message["timeout_s"])
    lane.begin(message, store.token)
    _worlds.enter(surroundings)
    try:
        text = Instance(store, linked.linker, linked.component).call_with_text(linked.run, message["task"])
    except Stopped as stopped:
        reply["error"] = explain_failure(stopped, surroundings, message["timeout_s"], fuel).to_wire()
    else:
        try:
            reply["value"] = _value(text)
        except errors.RunvisorError as error:
            reply["error"] = error.to_wire()
    finally:
        _worlds.leave()
        deadlines.end(store.token)
    out, err = live.end() if live is not None else (0, 0)  # what the host has had already
    reply["stdout"], reply["stderr"] = bytes(surroundings.stdout[out:]), bytes(surroundings.stderr[err:])
    if fuel is not None:
        reply["instructions"] = fuel - store.fuel_left()
    reply["cpu_s"] = time.thread_time() - began
    return reply


def _link(lane: EngineLane, message: Message) -> _Linked:
    component = lane.image(message["image"])
    assert isinstance(component, Component)
    with _linking:
        linked = _linked.get(component)
        if linked is None:
            engine = lane.process.cache(message["profile"]).engine.engine
            linked = _linked[component] = _Linked(component, engine, _worlds)
        return linked


def _value(text: bytes) -> bytes:
    """Return the packed value that a reply holds.

    Raises:
        GuestError: It says of an error, or is none.
        LimitExceeded: It is too large.
    """
    if len(text) > _MAX_REPLY_BYTES:
        raise errors.OutputLimitExceeded(
            "the task's value is larger than a reply may be", "value", "return a summary, or write less"
        )
    try:
        reply = json.loads(text)
        if "value" in reply:
            return pack(reply["value"])
        if "packed" in reply:
            return base64.b64decode(reply["packed"], validate=True)
    except errors.RunvisorError:
        raise
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise _broken_off() from None
    raise _reported(reply)


def _reported(reply: Any) -> errors.RunvisorError:
    if not isinstance(reply, dict):
        return _broken_off()
    what, where, remedy, traceback = (_text(reply, name) for name in ("what", "where", "remedy", "traceback"))
    if reply.get("type") == "MemoryLimitExceeded":
        return errors.MemoryLimitExceeded(
            "the task needed more memory than it may have",
            "memory_bytes",
            "raise memory_bytes, or work in smaller parts",
        )
    if reply.get("type") not in _SAYABLE or not what:
        return _broken_off()
    return errors.ERRORS[reply["type"]](what, where, remedy, {"traceback": traceback} if traceback else {})


def _text(reply: Mapping[str, Any], name: str) -> str:
    value = reply.get(name)
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _broken_off() -> errors.GuestCrashed:
    return errors.GuestCrashed("the task broke off its answer", "", "leave the interpreter's own modules alone")


OPERATIONS: Final[Mapping[str, Callable[[EngineLane, Message], Message]]] = {"python": _run}
