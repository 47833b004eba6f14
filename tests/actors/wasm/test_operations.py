"""What an arm adds to an engine process: host functions for its image, and requests of its own."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime

from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm import operations
from runvisor.actors.wasm.engine import EngineLane, EngineProcess
from runvisor.actors.wasm.engines import Engine
from runvisor.actors.wasm.hostcalls import define_function
from runvisor.actors.wasm.modules import CompiledModule
from runvisor.actors.wasm.profiles import PROFILES, TABLE_ELEMENTS, TABLES
from runvisor.actors.wasm.wire import Wire
from runvisor.policies.permissions import MiB

IMAGE = """(module (import "arm" "answer" (func $answer (result i32)))
  (func (export "ask") (param i32) (result i32) (i32.add (local.get 0) (call $answer))))"""


def define(engine: Engine) -> None:
    if engine.profile.name == "metered":
        kind = wasmtime.FuncType([], [wasmtime.ValType.i32()])
        define_function(engine.linker, "arm", "answer", kind, lambda caller, raw: 40)


def ask(lane: EngineLane, message: Message) -> Message:
    image = lane.image("answering")
    assert isinstance(image, CompiledModule)
    store = lane.store("metered")
    store.limit(MiB, TABLE_ELEMENTS, TABLES, 1000)
    lane.process.deadlines.begin(store.token, 1.0)
    store.instantiate(image.pre)
    function = image.functions["ask"]
    raw = store.call(function.name, struct.pack("<i12x", message["number"]), function.slots, function.result_bytes)
    lane.process.deadlines.end(store.token)
    return {"value": struct.unpack("<i12x", raw)[0]}


OPERATIONS = {"ask": ask}


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[EngineProcess, Wire]]:
    operations.arms.cache_clear()
    monkeypatch.setattr(operations, "ARMS", (__name__,))
    assert operations.arms() == (sys.modules[__name__],)
    process = EngineProcess(2)
    ours, theirs = socket.socketpair()
    process.serve_lane(theirs, os.open(os.devnull, os.O_RDONLY), 1)
    wire = Wire(ours)
    yield process, wire
    wire.close()
    monkeypatch.undo()
    operations.arms.cache_clear()


def test_an_arm_answers_its_own_requests_with_its_image(lane: tuple[EngineProcess, Wire], tmp_path: Path) -> None:
    process, wire = lane
    config = wasmtime.Config()
    PROFILES["metered"].configure(config)
    native = tmp_path / "image"
    native.write_bytes(wasmtime.Module(wasmtime.Engine(config), IMAGE).serialize())
    process.take_native(b"key", "metered", os.open(native, os.O_RDONLY))
    request = {"op": "image", "key": b"key", "name": "answering", "profile": "metered", "is_component": False}
    wire.send({"id": 1, **request})
    assert wire.receive() == {"id": 1}
    wire.send({"id": 2, "op": "ask", "number": 2})
    assert wire.receive() == {"id": 2, "value": 42}


def test_what_is_an_arms_to_import_is_not_every_modules(lane: tuple[EngineProcess, Wire]) -> None:
    _, wire = lane
    request = {"op": "compile", "key": b"guest", "code": IMAGE.encode(), "is_text": True}
    for number, profile in enumerate(("plain", "metered")):
        wire.send({"id": number, **request, "profile": profile})
        reply = wire.receive()
        assert reply is not None
        assert reply["error"]["type"] == "GuestSyntaxError"
