"""The whole runtime on wasmtime's public API, as with a version that the C functions are not tested on: as strict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.runtime import PoolSize
from runvisor.actors.wasm import library
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies import errors
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from tests.actors.wasm.conftest import run_on

Run = Callable[..., Result]

EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
WRITE = """(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 0) "\\10\\00\\00\\00\\04\\00\\00\\00") (data (i32.const 16) "true")"""
ONE_VECTOR = "(i32.const 1) (i32.const 0) (i32.const 1) (i32.const 60)"
LOOP = '(func (export "main") (loop $l (br $l)))'


@pytest.fixture(scope="module")
def runtime() -> Iterator[WasmRuntime]:
    if not probe_jail("test").available:
        pytest.skip(probe_jail("test").detail)
    runtime = WasmRuntime(PoolSize(maximum=4), "public")
    runtime.start()
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def wat(runtime: WasmRuntime) -> Run:
    def run(code: str, inputs: Any = None, **permissions: Any) -> Result:
        return run_on(runtime, Task(f"(module {code})", "wat", inputs, Permissions(**permissions)))

    return run


def leaving(code: int) -> str:
    main = f'(func (export "_start") (call $exit (i32.const {code})) unreachable)'
    return f'{EXIT} (memory (export "memory") 1) {main}'


def test_functions_and_commands_answer(wat: Run) -> None:
    assert wat('(func (export "f") (param i64 f64) (result f64) (local.get 1))', [1, 2.5]).value == 2.5
    written = wat(f'{WRITE} (func (export "_start") (drop (call $write {ONE_VECTOR})))')
    assert (written.value, written.stdout, written.error) == (True, "true", None)


def test_an_infinite_loop_ends_at_its_deadline_and_not_before(wat: Run) -> None:
    result = wat(LOOP, timeout_s=0.1)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert 0.1 <= result.usage.wall_s < 10


def test_limits_and_traps_are_told_apart(wat: Run) -> None:
    big = wat('(memory 100) (func (export "f"))', memory_bytes=MiB)
    assert isinstance(big.error, errors.MemoryLimitExceeded)
    deep = wat('(func $f (export "f") (call $f) (call $f))')
    assert isinstance(deep.error, errors.GuestException)
    assert "call stack" in deep.error.what
    counted = wat(LOOP, instructions=10_000)
    assert isinstance(counted.error, errors.InstructionLimitExceeded)


def test_an_exit_ends_the_run(wat: Run) -> None:
    left = wat(leaving(3))
    assert isinstance(left.error, errors.GuestException)
    assert left.error.details["exit_code"] == 3


def test_output_over_the_cap_ends_the_run_and_nothing_more_is_written(wat: Run) -> None:
    loop = f'(func (export "_start") (loop $l (drop (call $write {ONE_VECTOR})) (br $l)))'
    flood = wat(f"{WRITE} {loop}", output_bytes=10)
    assert isinstance(flood.error, errors.OutputLimitExceeded)
    assert flood.stdout == "truetruetr"


def test_the_end_of_one_run_does_not_reach_another(wat: Run) -> None:
    """The package keeps an exception of a host function where another thread would find it."""

    def leave(_: int) -> bool:
        return wat(leaving(0)).error is None

    def count(number: int) -> bool:
        return wat('(func (export "f") (param i32) (result i32) (local.get 0))', [number]).value == number

    with ThreadPoolExecutor(4) as pool:
        left, counted = pool.map(leave, range(60)), pool.map(count, range(60))
        assert all(left)
        assert all(counted)


def test_it_is_said_once_that_the_slow_way_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(library, "version", lambda _: "99.0.0")
    library.chosen_api.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert library.chosen_api() == library.chosen_api() == "public"
    assert [record.message for record in caplog.records] == [library.untested("99.0.0")]
    library.chosen_api.cache_clear()


def test_the_probe_says_so(runtime: WasmRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "public API" not in runtime.probe().detail
    monkeypatch.setattr(library, "TESTED", (1,))
    assert "public API" in runtime.probe().detail
