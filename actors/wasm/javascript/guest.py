"""The engine process's side: answers the ``javascript`` request.

It has ``code``, ``inputs`` (packed, or nothing for None), ``facts`` of the image,
``profile``, ``seed``, ``timeout_s``, ``memory_bytes``, ``output_bytes``, ``follow`` where output is
to come as it is printed, and ``fuel`` where instructions are counted. The reply is that of ``run`` for a command.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.v8 import inputs as values_in
from runvisor.actors.v8 import outputs as values_out
from runvisor.actors.wasm import capi
from runvisor.actors.wasm.fastpath import Frame, OutOfBounds, Stopped, Store
from runvisor.actors.wasm.images.manifest import Fact
from runvisor.actors.wasm.javascript import hostside
from runvisor.actors.wasm.javascript.agreement import METERED, OPERATION, PLAIN, image_name
from runvisor.actors.wasm.javascript.interpreter import Broken, Interpreter, is_unparsed, place_of
from runvisor.actors.wasm.live_output import LiveOutput
from runvisor.actors.wasm.modules import CompiledModule
from runvisor.actors.wasm.profiles import MAX_MEMORY_BYTES, TABLE_ELEMENTS, TABLES
from runvisor.actors.wasm.run import explain
from runvisor.actors.wasm.standby import Standing
from runvisor.actors.wasm.wasi import Wasi, World
from runvisor.policies import errors

if TYPE_CHECKING:
    from runvisor.actors.wasm.deadlines import Deadlines
    from runvisor.actors.wasm.engine import EngineLane
    from runvisor.actors.wasm.engines import Engine

_FULL: Final = 0.9
"""An interpreter that breaks with so much of its memory taken broke for want of it."""
_OUT_OF_MEMORY: Final = ("InternalError: out of memory", "RangeError: invalid array buffer length")
_RETURNABLE: Final = "return null, booleans, numbers, text, arrays, plain objects or typed arrays"


def define(engine: Engine) -> None:
    """Add the interpreter's imports to the linkers of its own profiles."""
    if engine.profile.name in (PLAIN, METERED):
        hostside.define(engine)


def run(lane: EngineLane, message: Message) -> Message:
    """Run one program in a fresh interpreter."""
    profile: str = message["profile"]
    name = image_name(profile)
    module = lane.image(name)
    assert isinstance(module, CompiledModule)
    began_at = time.thread_time()
    ready: Standing | None = None
    if "fuel" not in message:  # instructions are counted from the very first
        if message["memory_bytes"] >= module.minimum_bytes:
            ready = lane.standby.take(name)
        else:
            lane.standby.close()  # it has more than this program may have; making another says so
        lane.standby.order(name, partial(_make_ahead, lane, module, message))
    if ready is None:
        store, interpreter = lane.store(profile), None
    else:
        store, interpreter = ready.store, ready.instance
        lane.spend(store)
    lane.begin(message, store.token)
    execution = Execution(lane.process.deadlines, lane.process.wasi, store, module, message, interpreter)
    if message.get("follow"):
        live = LiveOutput(execution.world, lane.emit, lane.process.flusher)
        reply = execution.reply()
        out, err = live.end()  # what the host has had already
        reply |= {"stdout": reply["stdout"][out:], "stderr": reply["stderr"][err:]}
    else:
        reply = execution.reply()
    reply["cpu_s"] = time.thread_time() - began_at
    return reply


def _make_ahead(lane: EngineLane, module: CompiledModule, message: Message) -> Standing | None:
    """Make an interpreter for the next program; no code of the image runs for that."""
    store = lane.new_store(message["profile"], Frame())
    store.limit(MAX_MEMORY_BYTES, TABLE_ELEMENTS, TABLES)
    interpreter = Interpreter(store, message["facts"], lane.process.deadlines)
    try:
        store.instantiate(module.pre)
        interpreter.warm()
    except Stopped:
        store.close()
        return None
    return Standing(store, interpreter)


OPERATIONS: Final = {OPERATION: run}


class Execution:
    """One run of a program; the store stays the caller's to close.

    Args:
        deadlines: The process's.
        wasi: The process's.
        store: Fresh; it gets the request's limits here.
        module: The image.
        message: The request.
        interpreter: In the store, if it was made ahead; None has an instance made.

    Attributes:
        world: What it sees beside the interpreter.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        wasi: Wasi,
        store: Store,
        module: CompiledModule,
        message: Message,
        interpreter: Interpreter | None = None,
    ) -> None:
        self._interpreter = interpreter
        self._deadlines = deadlines
        self._wasi = wasi
        self._store = store
        self._module = module
        self._message = message
        self._fuel: int | None = message.get("fuel")
        self._facts: Mapping[str, Fact] = message["facts"]
        self.world = World(store.token, message["output_bytes"], deadlines=deadlines)

    def reply(self) -> Message:
        """Run it and describe what came of it."""
        message, store = self._message, self._store
        store.limit(min(message["memory_bytes"], MAX_MEMORY_BYTES), TABLE_ELEMENTS, TABLES, self._fuel)
        world = self.world
        reply: Message = {}
        self._deadlines.begin(store.token, message["timeout_s"])
        self._wasi.enter(world)
        hostside.enter(hostside.Streams(world, int(self._facts["words_at"]), int(self._facts["undefined"])))
        try:
            reply = self._execute()
        except Stopped as stopped:
            reply = {"error": self._explain(stopped, world).to_wire()}
        except (Broken, OutOfBounds):
            reply = {"error": self._broken().to_wire()}
        except errors.RunvisorError as error:
            reply = {"error": error.to_wire()}
        finally:
            self._deadlines.end(store.token)
            self._wasi.leave()
        reply["stdout"], reply["stderr"] = bytes(world.stdout), bytes(world.stderr)
        if self._fuel is not None:
            reply["instructions"] = self._fuel - store.fuel_left()
        reply["memory_bytes"] = self._memory_bytes()
        return reply

    def _execute(self) -> Message:
        message = self._message
        interpreter = self._interpreter
        if interpreter is None:
            self._store.instantiate(self._module.pre)
            interpreter = Interpreter(self._store, self._facts, self._deadlines)
        interpreter.seed(message["seed"])
        if message["inputs"]:
            decoded = values_in.decode(message["inputs"])
            token = secrets.token_hex(16)
            text, leaves = values_in.to_text(decoded, token)
            data = [leaf.data for leaf in leaves]
            buffers = [item for item in data if isinstance(item, bytes | memoryview)]
            interpreter.take_inputs(text, token if token in text else "", buffers)
        report = interpreter.report(message["code"])
        return self._describe(report["outcome"], str(report.get("token", "")), interpreter)

    def _describe(self, outcome: dict[str, Any], token: str, interpreter: Interpreter) -> Message:
        kind = outcome.get("kind")
        if kind == "value":
            buffers = [partial(bytes, interpreter.next_buffer()) for _ in range(int(outcome.get("leaves", 0)))]
            packed = values_out.to_packed(outcome.get("json"), token, buffers, has_marks=bool(token))
            return {"value": packed}
        what = str(outcome.get("what", ""))
        if kind == "unserializable":
            remedy = str(outcome.get("remedy") or _RETURNABLE)
            raise errors.UnserializableValue(f"{what} cannot leave the sandbox", "value", remedy)
        if what in _OUT_OF_MEMORY and self._is_full():
            raise self._too_much()
        where, frames = place_of(str(outcome.get("stack", "")))
        if is_unparsed(outcome):
            raise errors.GuestSyntaxError(what, where)
        raise errors.GuestException(what, where, "", {"traceback": f"{what}\n{frames}".rstrip() + "\n"})

    def _explain(self, stopped: Stopped, world: World) -> errors.RunvisorError:
        if world.overflowed:
            return errors.OutputLimitExceeded(
                f"the program wrote more than {world.output_bytes} bytes to {world.overflowed}",
                "output_bytes",
                "print less, or raise output_bytes; the first part is in the result",
            )
        if stopped.code == capi.OUT_OF_FUEL:
            return errors.InstructionLimitExceeded(
                f"the program ran more than {self._fuel} instructions", "instructions", "raise instructions, or do less"
            )
        if stopped.code == capi.STACK_OVERFLOW:
            return errors.GuestException("RangeError: Maximum call stack size exceeded", "", "recurse less deeply")
        return explain(stopped, self._deadlines, self._store.token, self._message["timeout_s"])

    def _broken(self) -> errors.RunvisorError:
        if self._is_full():
            return self._too_much()
        return errors.GuestException("the program broke the interpreter that it ran in")

    def _too_much(self) -> errors.MemoryLimitExceeded:
        return errors.MemoryLimitExceeded(
            f"the program took more than {self._message['memory_bytes']} bytes of memory",
            "memory_bytes",
            "raise memory_bytes, or keep less at once",
        )

    def _is_full(self) -> bool:
        most: int = min(self._message["memory_bytes"], MAX_MEMORY_BYTES)
        return (self._memory_bytes() or 0) >= _FULL * most

    def _memory_bytes(self) -> int | None:
        memory = self._store.memory()
        return memory.size if memory is not None else None
