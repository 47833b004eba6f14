"""The contract of stores, on the C functions and on the public API: the same answers, nothing left behind."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import wasmtime

from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.engines import Engine
from runvisor.actors.wasm.fastpath import Frame, OutOfBounds, Stopped, Store, decide_epochs_by
from runvisor.actors.wasm.library import Api
from runvisor.actors.wasm.modules import CompiledModule, compile_module
from runvisor.actors.wasm.profiles import TABLE_ELEMENTS, TABLES
from runvisor.actors.wasm.wasi import Wasi
from runvisor.policies.permissions import MiB

ADD = b'(module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))'
MEMORY = b"""(module (memory (export "memory") 1) (data (i32.const 8) "here")
  (func (export "grow") (result i32) (memory.grow (i32.const 1))) (func (export "trap") unreachable))"""


def make(api: Api) -> Engine:
    deadlines = Deadlines(lambda: None)
    deadlines.begin(1, 60.0)
    return Engine(4, Wasi(deadlines), "plain", api)


@pytest.fixture(scope="module", params=["c", "public"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return make(request.param)


@pytest.fixture(scope="module")
def fast_engine() -> Engine:
    return make("c")


def run(engine: Engine, module: CompiledModule, name: str, arguments: bytes = b"") -> bytes:
    function = module.functions[name]
    store = engine.store(Frame(), 1)
    try:
        store.limit(64 * MiB, TABLE_ELEMENTS, TABLES)
        store.instantiate(module.pre)
        return store.call(function.name, arguments, function.slots, function.result_bytes)
    finally:
        store.close()
        store.close()


def test_a_function_of_numbers_answers(engine: Engine) -> None:
    module = compile_module(engine, ADD, is_text=True)
    result = run(engine, module, "add", struct.pack("<i12xi12x", -5, 3))
    assert struct.unpack("<i12x", result) == (-2,)


def test_all_kinds_of_numbers_pass_both_ways(engine: Engine) -> None:
    code = b"""(module (func (export "swap") (param i32 i64 f32 f64) (result f64 f32 i64 i32)
      (local.get 3) (local.get 2) (local.get 1) (local.get 0)))"""
    module = compile_module(engine, code, is_text=True)
    result = run(engine, module, "swap", struct.pack("<i12xq8xf12xd8x", -1, -(2**63), 0.5, -0.0))
    assert struct.unpack("<d8xf12xq8xi12x", result) == (-0.0, 0.5, -(2**63), -1)
    assert module.functions["swap"].parameters == ("i32", "i64", "f32", "f64")


def test_exports_that_take_something_else_are_known_but_not_callable(engine: Engine) -> None:
    code = b'(module (func (export "v") (param v128)) (func (export "e") (result funcref) (ref.null func)))'
    module = compile_module(engine, code, is_text=True)
    assert not module.functions
    assert sorted(module.other_functions) == ["e", "v"]


def test_a_function_that_was_found_ahead_answers_in_whole_numbers(fast_engine: Engine) -> None:
    module = compile_module(fast_engine, ADD, is_text=True)
    store = fast_engine.store(Frame(), 1)
    assert isinstance(store, Store)
    store.limit(64 * MiB, TABLE_ELEMENTS, TABLES)
    with pytest.raises(Stopped):
        store.find(b"add")  # nothing is there before the instance
    store.instantiate(module.pre)
    with pytest.raises(Stopped):
        store.find(b"other")
    add = store.find(b"add")
    assert store.call_found(add, 2**32 - 1, 3) == 2
    assert store.call_found(add, 40, 2) == 42
    store.close()


def test_a_memory_that_grows_stays_where_it_is(fast_engine: Engine) -> None:
    code = b"""(module (memory (export "memory") 1)
      (func (export "grow") (result i32) (memory.grow (i32.const 500)))
      (func (export "mark") (result i32) (i32.store8 (i32.const 8) (i32.const 7)) (i32.const 0)))"""
    module = compile_module(fast_engine, code, is_text=True)
    store = fast_engine.store(Frame(), 1)
    assert isinstance(store, Store)
    store.limit(64 * MiB, TABLE_ELEMENTS, TABLES)
    store.instantiate(module.pre)
    kept = store.memory()
    assert kept is not None
    assert store.call_found(store.find(b"grow")) == 1
    store.call_found(store.find(b"mark"))
    assert kept.read(8, 1) == b"\7"
    with pytest.raises(OutOfBounds):
        kept.read(65536, 1)  # as it was
    store.close()


def test_traps_carry_their_code_and_the_wasm_backtrace(engine: Engine) -> None:
    module = compile_module(engine, b'(module (func $deep unreachable) (func (export "f") (call $deep)))', is_text=True)
    with pytest.raises(Stopped) as caught:
        run(engine, module, "f")
    assert caught.value.code == wasmtime.TrapCode.UNREACHABLE.value
    assert "deep" in caught.value.message
    assert "unreachable" in caught.value.reason


def test_limits_hold(engine: Engine) -> None:
    code = b"""(module (memory 1) (table 1 funcref)
      (func (export "memory") (result i32) (memory.grow (i32.const 5)))
      (func (export "table") (result i32) (table.grow (ref.null func) (i32.const 50))))"""
    module = compile_module(engine, code, is_text=True)
    for name in ("memory", "table"):
        store = engine.store(Frame(), 1)
        store.limit(3 * 65536, 40, 1)
        store.instantiate(module.pre)
        function = module.functions[name]
        assert struct.unpack("<i12x", store.call(function.name, b"", function.slots, function.result_bytes)) == (-1,)
        store.close()


def test_a_store_without_an_instance_has_no_exports(engine: Engine) -> None:
    """Asked for one anyway, the library would abort the process."""
    module = compile_module(engine, b'(module (func $f unreachable) (start $f) (func (export "g")))', is_text=True)
    store = engine.store(Frame(), 1)
    store.limit(1, 1, 1)
    with pytest.raises(Stopped) as caught:
        store.instantiate(module.pre)
    assert caught.value.code is not None
    assert store.memory() is None
    with pytest.raises(Stopped):
        store.call(b"g", b"", 0, 0)
    store.close()


def test_memory_is_read_and_written_within_its_bounds_only(engine: Engine) -> None:
    module = compile_module(engine, MEMORY, is_text=True)
    store = engine.store(Frame(), 1)
    store.limit(64 * MiB, TABLE_ELEMENTS, TABLES)
    store.instantiate(module.pre)
    memory = store.memory()
    assert memory is not None
    assert memory.read(8, 4) == b"here"
    memory.write(65535, b"x")
    for at, size in ((65535, 2), (-1, 1), (1 << 40, 0), (0, -1), (0, 65537)):
        with pytest.raises(OutOfBounds):
            memory.read(at, size)
        with pytest.raises(OutOfBounds):
            memory.copy_in(at, 0, size)
    with pytest.raises(OutOfBounds):
        memory.write(65535, b"xy")
    store.call(b"grow", b"", 1, 16)
    grown = store.memory()
    assert grown is not None
    assert grown.size == 2 * 65536
    assert store.memory(b"trap") is None
    store.close()


def test_a_moved_epoch_ends_only_those_who_may_not_go_on(fast_engine: Engine) -> None:
    module = compile_module(
        fast_engine,
        b'(module (func (export "run") (local i32) (loop $l (br_if $l (i32.lt_u (local.tee 0'
        b" (i32.add (local.get 0) (i32.const 1))) (i32.const 1000))))))",
        is_text=True,
    )
    asked: list[int] = []

    def may_go_on(token: int) -> bool:
        asked.append(token)
        return token == 7

    decide_epochs_by(may_go_on)
    for token, ends in ((7, False), (8, True)):
        store = fast_engine.store(Frame(), token)
        store.limit(1, 1, 1)
        store.instantiate(module.pre)
        fast_engine.move_epoch()
        if ends:
            with pytest.raises(Stopped) as caught:
                store.call(b"run", b"", 0, 0)
            assert "deadline" in caught.value.message
        else:
            store.call(b"run", b"", 0, 0)
        store.close()
    assert asked == [7, 8]


def timed_us(call: Callable[[], Any], times: int = 400) -> float:
    taken: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1e6


def test_a_fresh_instance_costs_a_third_of_the_public_api_at_most(fast_engine: Engine) -> None:
    """Measured 7.8 against 71 us; the bar leaves room for a busy machine."""
    module = compile_module(fast_engine, ADD, is_text=True)
    arguments = struct.pack("<i12xi12x", 1, 2)
    linked = fast_engine.linker.instantiate_pre(wasmtime.Module(fast_engine.engine, ADD))

    def public() -> None:
        with wasmtime.Store(fast_engine.engine) as store:
            store.set_limits(memory_size=64 * MiB, table_elements=1000, instances=1, tables=4, memories=1)
            store.set_epoch_deadline(1000)
            add = linked.instantiate(store).exports(store)["add"]
            assert isinstance(add, wasmtime.Func)
            assert add(store, 1, 2) == 3

    assert timed_us(lambda: run(fast_engine, module, "add", arguments)) * 3 < timed_us(public)


def test_many_instances_and_traps_leave_no_memory_behind(engine: Engine) -> None:
    module = compile_module(engine, MEMORY, is_text=True)

    def pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    def burst() -> None:
        for _ in range(1000):
            run(engine, module, "grow")
            with pytest.raises(Stopped):
                run(engine, module, "trap")

    burst()
    before = pages()
    for _ in range(2):
        burst()
    assert pages() - before < 500
