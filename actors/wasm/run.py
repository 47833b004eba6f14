"""One run in an engine process: from a fresh store to its reply."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import wasmtime

from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.engines import AnyStore
from runvisor.actors.wasm.fastpath import Stopped
from runvisor.actors.wasm.live_output import LiveOutput
from runvisor.actors.wasm.modules import CompiledModule
from runvisor.actors.wasm.profiles import MAX_MEMORY_BYTES, STACK_BYTES, TABLE_ELEMENTS, TABLES
from runvisor.actors.wasm.wasi import Wasi, World
from runvisor.actors.wasm.wasi.deterministic import Deterministic
from runvisor.actors.wasm.wasi.guard import Denial
from runvisor.actors.wasm.wasi.network import Web
from runvisor.actors.wasm.wasi.preopens import grant_files
from runvisor.policies import errors
from runvisor.policies.permissions import KiB
from runvisor.policies.values import Value, pack

if TYPE_CHECKING:
    from runvisor.actors.wasm.engine import EngineLane

_NO_SLOT: Final = "maximum concurrent"
"""Of instances, memories or tables, in the engine: others have them all just now."""
_NO_ROOM: Final = "exceeds memory limits"
_NO_TABLE_ROOM: Final = "exceeds table limits"


class Run:
    """One run of a module by the conventions; the store stays the caller's to close.

    Args:
        deadlines: The process's.
        wasi: The process's.
        store: Fresh, without limits yet.
        module: What to run.
        message: The ``run`` request.
        lane: What takes events on their way to the host.
    """

    __slots__ = ("_deadlines", "_fuel", "_lane", "_live", "_message", "_module", "_store", "_told", "_wasi", "_world")

    def __init__(
        self,
        deadlines: Deadlines,
        wasi: Wasi,
        store: AnyStore,
        module: CompiledModule,
        message: Message,
        lane: EngineLane,
    ) -> None:
        self._lane = lane
        self._live: LiveOutput | None = None
        self._told = (0, 0)
        self._deadlines = deadlines
        self._wasi = wasi
        self._store = store
        self._module = module
        self._message = message
        self._fuel: int | None = message.get("fuel")
        self._world: World | None = None

    def reply(self) -> Message:
        """Run it and describe what came of it."""
        message, store, module = self._message, self._store, self._module
        store.limit(min(message["memory_bytes"], MAX_MEMORY_BYTES), TABLE_ELEMENTS, TABLES, self._fuel)
        reply: Message = {}
        self._deadlines.begin(store.token, message["timeout_s"])
        try:
            if module.uses_wasi:
                self._world = self._make_world(store.token)
                self._wasi.enter(self._world)
            reply["results"] = self._execute()
        except Stopped as stopped:
            if stopped.code is None and _NO_SLOT in stopped.message:
                return {"exhausted": True}
            error = self._explain(stopped)
            if error is not None:
                reply["error"] = error.to_wire()
            else:
                reply["has_left"] = True  # by proc_exit(0): there is no result
        finally:
            self._deadlines.end(store.token)
            if self._world is not None:
                self._wasi.leave()
            if self._live is not None:
                self._told = self._live.end()
        if self._world is not None:
            self._add_output(self._world, reply)
        if self._fuel is not None:
            reply["instructions"] = self._fuel - store.fuel_left()
        if module.minimum_bytes:
            memory = store.memory()
            reply["memory_bytes"] = memory.size if memory is not None else None
        return reply

    def _execute(self) -> bytes:
        arguments: bytes = self._message["arguments"]
        store, module = self._store, self._module
        function = module.functions[self._message["entry"]]
        if len(arguments) != function.argument_bytes:
            raise errors.ProtocolError(f"{len(arguments)} bytes of arguments for {function.name!r}")
        store.instantiate(module.pre)
        if module.is_reactor:
            store.call(b"_initialize", b"", 0, 0)
        return store.call(function.name, arguments, function.slots, function.result_bytes)

    def _make_world(self, token: int) -> World:
        message = self._message
        environment = tuple(f"{name}={text}".encode() for name, text in message["environment"].items())
        arguments = tuple(map(str.encode, message["argv"])) if "argv" in message else (b"main",)
        world = World(token, message["output_bytes"], message["stdin"], arguments, environment)
        if message.get("is_deterministic"):
            world.ambient = Deterministic()
        world.on_denial = self._tell_denial
        if message.get("follow"):
            self._live = LiveOutput(world, self._lane.emit, self._lane.process.flusher)
        if "files" in message:
            grant_files(world, message["files"])
        if message.get("web") and self._lane.process.web is not None:
            world.web = Web(self._lane.process.web)
        return world

    def _tell_denial(self, denial: Denial) -> None:
        self._lane.emit({"event": "denied", **denial.to_message()})

    def _add_output(self, world: World, reply: Message) -> None:
        reply["stdout"], reply["stderr"] = bytes(world.stdout[self._told[0] :]), bytes(world.stderr[self._told[1] :])
        if self._message["is_command"] and "error" not in reply:
            code = int.from_bytes(reply.pop("results", b"")[:4], "little", signed=True)
            if code:  # returned by main, not by proc_exit
                reply["error"] = _exited(code).to_wire()
            else:
                reply["value"] = pack(_document(bytes(world.stdout)))

    def _explain(self, stopped: Stopped) -> errors.RunvisorError | None:
        """Say why it did not return; None if it left with success."""
        world = self._world
        if world is not None and world.exit_code is not None:
            return None if world.exit_code == 0 else _exited(world.exit_code)
        if world is not None and world.overflowed:
            return errors.OutputLimitExceeded(
                f"the program wrote more than {world.output_bytes} bytes to {world.overflowed}",
                "output_bytes",
                "print less, or raise output_bytes; the first part is in the result",
            )
        if stopped.code == wasmtime.TrapCode.OUT_OF_FUEL.value:
            return errors.InstructionLimitExceeded(
                f"the program ran more than {self._fuel} instructions",
                "instructions",
                "raise instructions, or do less",
                {"traceback": stopped.message},
            )
        return explain(stopped, self._deadlines, self._store.token, self._message["timeout_s"])


def explain(stopped: Stopped, deadlines: Deadlines, token: int, timeout_s: float) -> errors.RunvisorError:
    """Say why guest code did not return, where nothing but the engine ended it.

    An exhausted call stack is the guest's exception, as in every other language
    here: its size is the engine's, not a limit of the grant.
    """
    details = {"traceback": stopped.message}
    if stopped.code == wasmtime.TrapCode.STACK_OVERFLOW.value:
        return errors.GuestException(
            f"the call stack of {STACK_BYTES // KiB} KiB is exhausted", "", "recurse less deeply, or loop", details
        )
    if stopped.code is None and not deadlines.may_go_on(token):
        return errors.TimeLimitExceeded(
            f"the program ran longer than {timeout_s:g} s", "timeout_s", "raise timeout_s, or do less", details
        )
    if stopped.code is None and (_NO_ROOM in stopped.message or _NO_TABLE_ROOM in stopped.message):
        return errors.MemoryLimitExceeded(
            f"the module begins with more than it may have: {stopped.reason}",
            "memory_bytes",
            "raise memory_bytes, or link with less initial memory",
        )
    return errors.GuestException(stopped.reason, "", "", details)


def _exited(code: int) -> errors.GuestException:
    return errors.GuestException(f"the program exited with code {code}", "", "", {"exit_code": code})


def _document(text: bytes) -> Value:
    """Return the value of a text that is one JSON document which may cross the boundary, else None."""
    try:
        value = json.loads(text.decode(), parse_constant=_refuse)
        pack(value)
    except (ValueError, RecursionError, errors.UnserializableValue):
        return None
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
