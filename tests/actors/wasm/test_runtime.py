"""Modules on the runtime: values, errors, limits, and nothing that one run leaves to another."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies import errors
from runvisor.policies.permissions import KiB, MiB, Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from tests.actors.executing import Heard
from tests.actors.wasm.conftest import Run, run_on

pytestmark = pytest.mark.root

ADD = '(func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))'
SPIN = '(func (export "run") (loop $again (br $again)))'
SUM_TO = """(func (export "run") (param i32) (result i64) (local i64)
  (loop $again
    (local.set 1 (i64.add (local.get 1) (i64.extend_i32_u (local.get 0))))
    (br_if $again (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
  (local.get 1))"""
WASI = "wasi_snapshot_preview1"
EXIT = f'(import "{WASI}" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)'
WRITE = f"""(import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\05\\00\\00\\00") (data (i32.const 16) "[1,2]")
  (func $put (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"""


def test_an_exported_function_is_called_with_the_inputs(wat: Run) -> None:
    result = wat(ADD, [40, 2])
    assert (result.unwrap(), result.stdout, result.stderr) == (42, "", "")


def test_several_results_are_a_list_and_none_is_none(wat: Run) -> None:
    swap = '(func (export "run") (param i32 f64) (result f64 i32) (local.get 1) (local.get 0))'
    assert wat(swap, [1, 2.5]).unwrap() == [2.5, 1]
    assert wat('(func (export "run"))').unwrap() is None


def test_more_values_than_fit_the_usual_frame(wat: Run) -> None:
    count = 40
    kinds, gets = "i64 " * count, " ".join(f"(local.get {n})" for n in range(count))
    assert wat(f'(func (export "run") (param {kinds}) (result {kinds}) {gets})', list(range(count))).unwrap() == list(
        range(count)
    )


KINDS = {
    "i32": st.integers(-(1 << 31), (1 << 31) - 1),
    "i64": st.integers(-(1 << 63), (1 << 63) - 1),
    "f32": st.floats(width=32, allow_nan=False),
    "f64": st.floats(allow_nan=False),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=5), st.data())
def test_scalars_come_back_as_they_went_in(wat: Run, kinds: list[str], data: st.DataObject) -> None:
    values = [data.draw(KINDS[kind]) for kind in kinds]
    gets = " ".join(f"(local.get {n})" for n in range(len(kinds)))
    types = " ".join(kinds)
    back = wat(f'(func (export "run") (param {types}) (result {types}) {gets})', values).unwrap()
    assert back == (values if len(values) > 1 else values[0] if values else None)


def test_numpy_numbers_are_numbers(wat: Run) -> None:
    assert wat(ADD, np.array([1, 2], np.int32)).unwrap() == 3


def test_a_binary_module_runs_like_its_text(runtime: WasmRuntime) -> None:
    import wasmtime

    binary = bytes(wasmtime.wat2wasm(f"(module {ADD})"))
    assert run_on(runtime, Task(binary, "wasm", [1, 2])).unwrap() == 3


@pytest.mark.parametrize(
    ("code", "inputs", "where"),
    [(ADD, [1], "inputs"), (ADD, ["1", 2], "inputs[0]"), (ADD, {"a": 1}, "inputs"), ("", None, "exports")],
)
def test_a_task_that_cannot_be_run_as_given_is_refused(wat: Run, code: str, inputs: Any, where: str) -> None:
    with pytest.raises(errors.InvalidTask) as caught:
        wat(code, inputs)
    assert caught.value.where == where


def test_text_where_bytes_are_due_is_refused(runtime: WasmRuntime) -> None:
    with pytest.raises(errors.InvalidTask):
        run_on(runtime, Task("(module)", "wasm"))


@pytest.mark.parametrize(
    ("code", "where"),
    [
        ("(nonsense)", "1:10"),
        ('(func (export "f") (i32.add))', "byte 30"),
        ('(import "env" "f" (func))', "import env.f"),
        (f'(import "{WASI}" "no_such" (func))', f"import {WASI}.no_such"),
        (f'(import "{WASI}" "proc_exit" (func (param f64)))', ""),
        ("(memory 1 1 shared)", "byte 11"),
        ("(memory 1) (memory 1)", "byte 10"),
        ("(memory i64 1)", "byte 11"),
        ("(tag $t)", "byte 16"),
    ],
    ids=["text", "types", "import", "wasi import", "import type", "threads", "memories", "memory64", "exceptions"],
)
def test_what_is_no_module_here_is_a_syntax_error_with_its_place(wat: Run, code: str, where: str) -> None:
    error = wat(code).error
    assert isinstance(error, errors.GuestSyntaxError)
    assert error.where == where


def test_bytes_that_are_no_module_are_a_syntax_error(runtime: WasmRuntime) -> None:
    for code in (b"\x7fELF", b"\0asm", b"(module)", b"\0asm\1\0\0\0\1\5"):
        assert isinstance(run_on(runtime, Task(code, "wasm")).error, errors.GuestSyntaxError)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(drop (i32.load (i32.const 0x7fffffff)))", "out of bounds memory access"),
        ("(call_indirect (i32.const 0))", "uninitialized element"),
        ("(drop (i32.trunc_f64_s (f64.const nan)))", "invalid conversion to integer"),
    ],
)
def test_a_trap_is_the_guests_exception_with_its_backtrace(wat: Run, body: str, reason: str) -> None:
    error = wat(f'(table 1 funcref) (memory 1) (func $inner {body}) (func (export "run") call $inner)').error
    assert isinstance(error, errors.GuestException)
    assert reason in error.what
    assert "inner" in error.details["traceback"]


def test_an_exhausted_call_stack_is_the_guests_exception(wat: Run) -> None:
    error = wat('(func $f (export "run") (call $f) (call $f))').error
    assert isinstance(error, errors.GuestException)
    assert "call stack" in error.what


@pytest.mark.parametrize("code", [SPIN, '(func $f (loop $l (br $l))) (start $f) (func (export "run"))'])
def test_an_infinite_loop_ends_at_its_deadline(wat: Run, code: str) -> None:
    result = wat(code, timeout_s=0.2)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert 0.19 <= result.usage.wall_s < 10


def test_instructions_are_counted_and_bounded(wat: Run) -> None:
    first, second = (wat(SUM_TO, 1000, instructions=100_000) for _ in range(2))
    assert first.unwrap() == 500_500
    assert first.usage.instructions is not None
    assert first.usage.instructions > 1000
    assert first.usage.instructions == second.usage.instructions
    over = wat(SUM_TO, 1000, instructions=first.usage.instructions // 2)
    assert isinstance(over.error, errors.InstructionLimitExceeded)
    assert "instructions" in first.isolation.limits_enforced
    unmetered = wat(SUM_TO, 1000)
    assert unmetered.usage.instructions is None
    assert "instructions" not in unmetered.isolation.limits_enforced


def test_memory_beyond_the_limit_is_refused_to_the_guest(wat: Run) -> None:
    grow = '(memory (export "memory") 1) (func (export "run") (param i32) (result i32) (memory.grow (local.get 0)))'
    assert wat(grow, 15, memory_bytes=1 * MiB).unwrap() == 1
    assert wat(grow, 16, memory_bytes=1 * MiB).unwrap() == -1
    assert wat(grow, 15, memory_bytes=1 * MiB).usage.peak_memory_bytes == 1 * MiB


@pytest.mark.parametrize("exported", ['(memory (export "memory") 17)', "(memory 17)"])
def test_a_module_that_begins_with_too_much_memory_is_over_its_limit(wat: Run, exported: str) -> None:
    error = wat(f'{exported} (func (export "run"))', memory_bytes=1 * MiB).error
    assert isinstance(error, errors.MemoryLimitExceeded)
    assert error.where == "memory_bytes"


def test_tables_are_bounded_too(wat: Run) -> None:
    grow = """(table 1 funcref) (func (export "run") (param i32) (result i32)
      (table.grow (ref.null func) (local.get 0)))"""
    assert wat(grow, 10).unwrap() == 1
    assert wat(grow, 1_000_000).unwrap() == -1
    assert isinstance(wat('(table 1000000 funcref) (func (export "run"))').error, errors.GuestSyntaxError)


def test_output_beyond_the_cap_ends_the_run_at_once(wat: Run) -> None:
    result = wat(f'{WRITE} (func (export "_start") (loop $l (call $put) (br $l)))', output_bytes=1002)
    assert isinstance(result.error, errors.OutputLimitExceeded)
    assert result.stdout == "[1,2]" * 200 + "[1"
    assert result.usage.wall_s < 5


def test_a_commands_value_is_the_json_that_it_prints(wat: Run) -> None:
    result = wat(f'{WRITE} (func (export "_start") (call $put))')
    assert (result.unwrap(), result.stdout) == ([1, 2], "[1,2]")
    twice = wat(f'{WRITE} (func (export "_start") (call $put) (call $put))')
    assert (twice.unwrap(), twice.stdout) == (None, "[1,2][1,2]")


def test_output_of_a_function_is_kept_beside_its_result(wat: Run) -> None:
    result = wat(f'{WRITE} (func (export "run") (param i32) (result i32) (call $put) (local.get 0))', 7)
    assert (result.unwrap(), result.stdout) == (7, "[1,2]")


@pytest.mark.parametrize(("code", "ok"), [(0, True), (3, False), (-1, False)])
def test_an_exit_code_other_than_0_is_an_error_that_names_it(wat: Run, code: int, ok: bool) -> None:
    by_exit = wat(f'{EXIT} (func (export "_start") (call $exit (i32.const {code})) unreachable)')
    by_return = wat(f'{EXIT} (func (export "main") (result i32) (i32.const {code}))')
    for result in (by_exit, by_return):
        assert result.ok == ok
        if not ok:
            assert isinstance(result.error, errors.GuestException)
            assert result.error.details["exit_code"] in (code, code & 0xFFFFFFFF)


def test_a_reactor_is_initialised_before_its_function_runs(wat: Run) -> None:
    code = """(global $ready (mut i32) (i32.const 0))
      (func (export "_initialize") (global.set $ready (i32.const 9)))
      (func (export "run") (result i32) (global.get $ready))"""
    assert wat(code).unwrap() == 9


def test_every_run_has_a_fresh_instance(wat: Run) -> None:
    count = """(memory (export "memory") 2) (global $n (mut i32) (i32.const 0)) (table 4 funcref)
      (func (export "run") (result i32)
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (i32.store (i32.const 70000) (i32.add (i32.load (i32.const 70000)) (i32.const 1)))
        (i32.add (i32.mul (global.get $n) (i32.const 10)) (i32.load (i32.const 70000))))"""
    assert [wat(count).unwrap() for _ in range(20)] == [11] * 20


def test_a_module_is_compiled_once(wat: Run) -> None:
    code = '(func (export "only_here") (result i32) (i32.const 77))'
    kinds = [wat(code).usage.start_kind for _ in range(3)]
    assert kinds == ["cold", "warm", "warm"]
    assert wat(code, instructions=1000).usage.start_kind == "cold"


def test_a_forgotten_module_is_compiled_again(runtime: WasmRuntime, wat: Run) -> None:
    code = '(func (export "forgotten") (result i32) (i32.const 78))'
    assert wat(code).unwrap() == 78
    for number in range(300):
        wat(f'(func (export "filler") (result i32) (i32.const {number}))')
    assert wat(code).unwrap() == 78


def test_runs_are_parallel_and_do_not_disturb_each_other(wat: Run) -> None:
    """Endless, trapping and sane runs at once: each gets its own end, and the sane ones do not wait."""
    wat(SUM_TO, 1)
    results: dict[str, Any] = {}

    def run(name: str, *arguments: Any, **permissions: Any) -> None:
        results[name] = wat(*arguments, **permissions)

    endless = [threading.Thread(target=run, args=(f"spin{n}", SPIN), kwargs={"timeout_s": 1.0}) for n in range(2)]
    began = time.monotonic()
    for thread in endless:
        thread.start()
    while time.monotonic() - began < 0.5:
        assert wat(SUM_TO, 1000).unwrap() == 500_500
        assert isinstance(wat('(func (export "run") unreachable)').error, errors.GuestException)
    for thread in endless:
        thread.join()
    assert all(isinstance(results[f"spin{n}"].error, errors.TimeLimitExceeded) for n in range(2))


def test_granted_environment_variables_are_all_it_sees(wat: Run) -> None:
    code = f"""(import "{WASI}" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
      (import "{WASI}" "environ_get" (func $get (param i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "run") (result i32 i32 i32)
        (drop (call $sizes (i32.const 0) (i32.const 4))) (drop (call $get (i32.const 8) (i32.const 64)))
        (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.load (i32.const 64)))"""
    assert wat(code).unwrap() == [0, 0, 0]
    assert wat(code, env={"A": "b"}).unwrap() == [1, 4, int.from_bytes(b"A=b\0", "little")]


def test_the_result_says_what_was_enforced_and_what_was_used(wat: Run) -> None:
    result = wat(SUM_TO, 2_000_000)
    assert result.isolation.engine == "wasmtime"
    assert {"wasm memory sandbox", "seccomp allow-list", "landlock"} <= set(result.isolation.layers)
    assert result.isolation.no_spawn
    assert result.isolation.network == "none"
    assert "tester" in result.isolation.shared_with[0]
    assert result.usage.cpu_s is not None
    assert 0.0001 < result.usage.cpu_s < 5
    assert result.usage.bytes_in > len(SUM_TO)
    assert result.usage.bytes_out == 16


def test_a_language_of_another_variant_is_refused(runtime: WasmRuntime) -> None:
    for variant, language in (("module", "c-record"), ("record", "wat"), ("module", "python"), ("none", "wat")):
        with pytest.raises(errors.InvalidTask):
            run_on(runtime, Task("(module)", language), variant=variant)


def test_the_probe_says_that_it_runs_here(runtime: WasmRuntime) -> None:
    probe = runtime.probe()
    assert probe.available
    assert "wasmtime" in probe.detail


@pytest.mark.parametrize(
    ("language", "finder", "remedy"),
    [
        ("c", "ziglang.find", "runvisor[compilers]"),
        ("cpp", "ziglang.find", "runvisor[compilers]"),
        ("zig", "ziglang.find", "runvisor[compilers]"),
        ("go", "go.find", "runvisor[go]"),
        ("rust", "rust.find_linker", "apt-get install"),
    ],
)
def test_without_its_compiler_a_language_is_refused_with_the_remedy(
    language: str, finder: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"runvisor.actors.wasm.compilers.{finder}", lambda: None)
    runtime = WasmRuntime()
    try:
        with pytest.raises(errors.ConfigError) as caught:
            run_on(runtime, Task("never seen", language))
        assert remedy in caught.value.remedy
        probe = runtime.probe()
        assert f"no {language} (" in probe.detail
        assert remedy in probe.detail
        assert ("record" in dict(probe.unavailable_variants)) == ("ziglang" in finder)
    finally:
        runtime.close()


def test_a_full_runtime_makes_callers_wait_and_then_says_so() -> None:
    runtime = WasmRuntime(PoolSize(maximum=1, wait_s=0.05, max_waiting=1))
    runtime.start()
    try:
        permissions = Permissions(timeout_s=1.0)
        grant = Grant("tester", Trust.UNTRUSTED, permissions)
        began = threading.Event()
        busy = threading.Thread(
            target=runtime.execute,
            args=(Task(f"(module {SPIN})", "wat", None, permissions), "module", grant, Watch(began.set)),
        )
        busy.start()
        assert began.wait(20)
        assert (runtime.load().busy, runtime.load().idle) == (1, 0)
        with pytest.raises(errors.PoolExhausted):
            runtime.execute(Task(f"(module {ADD})", "wat", [1, 2]), "module", grant, Watch())
        busy.join()
        assert runtime.load().busy == 0
    finally:
        runtime.close()
        runtime.close()


def test_a_cancelled_task_is_said_to_be_and_an_early_word_keeps_it_from_running(runtime: WasmRuntime) -> None:
    for early in (True, False):
        heard = Heard()
        watch = heard.watch if early else Watch(heard.watch.cancellation.cancel, cancellation=heard.watch.cancellation)
        if early:
            heard.watch.cancellation.cancel()
        permissions = Permissions()
        grant = Grant("tester", Trust.UNTRUSTED, permissions)
        result = runtime.execute(Task(f"(module {ADD})", "wat", [1, 2], permissions), "module", grant, watch)
        assert isinstance(result.error, errors.Cancelled)
        assert result.value is None
        assert heard.starts == 0


def test_small_memory_is_enough_for_a_small_module(wat: Run) -> None:
    assert wat(ADD, [1, 2], memory_bytes=1).unwrap() == 3
    assert wat(f"(memory 1) {ADD}", [1, 2], memory_bytes=64 * KiB).unwrap() == 3
