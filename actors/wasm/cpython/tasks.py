"""Inside the engine process: runs one Python task in a fresh instance of the image.

The request ``python`` (image, task, and those of `runvisor.actors.wasm.components.calls`)
is answered as there. ``task`` is the text for the interpreter, see
`runvisor.actors.wasm.cpython.messages`; what the interpreter says is hostile.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from wasmtime.component import Component

from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm.components.calls import answer
from runvisor.actors.wasm.components.imports import Linker
from runvisor.actors.wasm.components.instances import Export, Instance
from runvisor.actors.wasm.components.world import Worlds
from runvisor.actors.wasm.fastpath import Frame, Stopped, Store
from runvisor.actors.wasm.profiles import PROFILES
from runvisor.actors.wasm.standby import Standing
from runvisor.policies import errors
from runvisor.policies.permissions import MiB
from runvisor.policies.values import pack

if TYPE_CHECKING:
    from runvisor.actors.wasm.engine import EngineLane

_MAX_REPLY_BYTES: Final = 24 * MiB
_MAX_TEXT: Final = 64 * 1024
_AHEAD_S: Final = 5.0
"""How long an instance may take to start while nobody waits for it."""
_SAYABLE: Final = ("GuestException", "GuestSyntaxError", "UnserializableValue")


class _Linked:
    """An image with what it may import, made when it first runs."""

    def __init__(self, component: Component, engine: Any, worlds: Worlds) -> None:
        self.component = component
        self.linker = Linker(engine, component, worlds.host_functions())
        self.run = Export(component, "run")


_worlds: Final = Worlds()
_linked: Final[dict[Component, _Linked]] = {}
_linking: Final = threading.Lock()


def _run(lane: EngineLane, message: Message) -> Message:
    linked = _link(lane, message)
    ready: Standing | None = None
    if "fuel" not in message:  # instructions are counted from the very first
        ready = lane.standby.take(message["image"])
        lane.standby.order(message["image"], partial(_make_ahead, lane, linked, message["profile"]))

    def run(store: Store) -> bytes:
        instance = Instance(store, linked.linker, linked.component) if ready is None else ready.instance
        return _value(instance.call_with_text(linked.run, message["task"]))

    return answer(lane, message, _worlds, run, ready=None if ready is None else ready.store)


def _make_ahead(lane: EngineLane, linked: _Linked, profile: str) -> Standing | None:
    """Make an instance for the next task: 1 ms that it does not wait for.

    There is no world yet: a host function called now would fail, and the instance not be kept.
    """
    store = lane.new_store(profile, Frame())
    room, deadlines = PROFILES[profile], lane.process.deadlines
    limits = {"instances": room.instances, "memories": room.memories}
    store.limit(room.memory_bytes, room.table_elements, room.instances, **limits)
    deadlines.begin(store.token, _AHEAD_S)
    try:
        return Standing(store, Instance(store, linked.linker, linked.component))
    except Stopped:
        store.close()
        return None
    finally:
        deadlines.end(store.token)


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
