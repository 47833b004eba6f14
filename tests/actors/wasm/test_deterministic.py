"""Deterministic executions: the same program gives the same bits and counts the same instructions, wherever it runs."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies import errors
from runvisor.policies.permissions import Filesystem, Permissions
from runvisor.policies.result import Result
from runvisor.policies.scheduling.arms import ARMS, split_eligible
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from tests.actors.wasm.conftest import Run, run_on

IMPORTS = """
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)"""

I64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(lambda n: f"(i64.const {n})"),
    st.sampled_from(
        [
            "(local.get $x)",
            "(i64.load (i32.const 8))",
            "(block (result i64) (drop (call $random (i32.const 8) (i32.const 8))) (i64.load (i32.const 8)))",
            "(block (result i64) (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 16)))"
            " (i64.load (i32.const 16)))",
            "(block (result i64) (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 16)))"
            " (i64.load (i32.const 16)))",
            "(i64.extend_i32_s (memory.grow (i32.const 1)))",
        ]
    ),
)
F64 = st.sampled_from(["f64.const nan", "f64.const nan:0x123", "f64.const -0", "f64.const inf", "f64.const 1e308"]).map(
    lambda text: f"({text})"
)


def grown(i64: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["add", "mul", "xor", "rotl", "sub", "shr_u", "div_u", "rem_s"])
    double = st.one_of(
        F64, i64.map(lambda a: f"(f64.reinterpret_i64 {a})"), i64.map(lambda a: f"(f64.convert_i64_s {a})")
    )
    joined = st.tuples(st.sampled_from(["add", "div", "mul", "min", "copysign"]), double, double)
    return st.one_of(
        st.tuples(binary, i64, i64).map(lambda t: f"(i64.{t[0]} {t[1]} {t[2]})"),
        joined.map(lambda t: f"(i64.reinterpret_f64 (f64.{t[0]} {t[1]} {t[2]}))"),
        joined.map(lambda t: f"(i64.reinterpret_f64 (f64.sqrt (f64.{t[0]} {t[1]} {t[2]})))"),
        joined.map(lambda t: f"(i64.extend_i32_s (i32.reinterpret_f32 (f32.demote_f64 (f64.{t[0]} {t[1]} {t[2]}))))"),
        st.tuples(i64, i64, i64).map(lambda t: f"(select {t[0]} {t[1]} (i32.wrap_i64 {t[2]}))"),
    )


PROGRAM = st.tuples(st.recursive(I64, grown, max_leaves=12), st.integers(0, 40)).map(
    lambda t: (
        f"""{IMPORTS} (func (export "main") (result i64) (local $x i64) (local $n i32)
  (loop $again (local.set $x {t[0]}) (local.set $n (i32.add (local.get $n) (i32.const 1)))
    (br_if $again (i32.lt_u (local.get $n) (i32.const {t[1]})))) (local.get $x))"""
    )
)


def observed(result: Result) -> tuple[Any, ...]:
    error = None if result.error is None else result.error.to_wire()
    value = struct.pack("<d", result.value) if isinstance(result.value, float) else result.value
    return value, result.stdout, result.stderr, error, result.usage.instructions


def run_twice(runtime: WasmRuntime, code: str, language: str = "wat", inputs: Any = None) -> Result:
    task = Task(code, language, inputs, Permissions(deterministic=True))
    first, second = run_on(runtime, task, "one"), run_on(runtime, task, "two")
    assert observed(first) == observed(second)
    assert first.usage.instructions is not None
    return first


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=PROGRAM)
def test_generated_programs_repeat_to_the_bit(runtime: WasmRuntime, program: str) -> None:
    result = run_twice(runtime, f"(module {program})")
    assert result.error is None or isinstance(result.error, errors.GuestException)


def test_time_passes_alike_and_sleeping_takes_none(runtime: WasmRuntime) -> None:
    """The program waits for the clock to reach an hour from its start, by polling and by looking."""
    code = f"""(module {IMPORTS}
      (data (i32.const 64) "\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00\\00")
      (func $now (result i64) (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 16))) (i64.load (i32.const 16)))
      (func (export "main") (result i64) (local $until i64)
        (i32.store (i32.const 80) (i32.const 1)) (i64.store (i32.const 88) (i64.const 3600000000000))
        (drop (call $poll (i32.const 64) (i32.const 160) (i32.const 1) (i32.const 240)))
        (local.set $until (i64.add (call $now) (i64.const 1000000000)))
        (loop $wait (br_if $wait (i64.lt_u (call $now) (local.get $until)))) (call $now)))"""
    result = run_twice(runtime, code)
    assert result.error is None
    assert result.usage.wall_s < 5


def test_a_c_program_repeats_although_it_asks_for_time_and_chance(c: Run, runtime: WasmRuntime) -> None:
    code = """#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <math.h>
int main(void) {
  unsigned char bytes[8]; getentropy(bytes, sizeof bytes);
  srand(time(0) ^ bytes[0]);
  double sum = 0; for (int i = 0; i < 1000; i++) sum += sin(rand()) / (i % 7);
  printf("[%d, %d, \\"%a\\", %ld]", bytes[3], rand(), sum, (long)clock());
}"""
    assert run_twice(runtime, code, "c").value is not None


def test_without_it_programs_do_differ(runtime: WasmRuntime) -> None:
    code = f"""(module {IMPORTS} (func (export "main") (result i64)
      (drop (call $random (i32.const 8) (i32.const 8))) (i64.load (i32.const 8))))"""
    assert len({run_on(runtime, Task(code, "wat")).value for _ in range(3)}) == 3


def test_an_instruction_budget_ends_it_at_the_same_place(runtime: WasmRuntime) -> None:
    task = Task(
        '(module (func (export "main") (loop $l (br $l))))',
        "wat",
        None,
        Permissions(deterministic=True, instructions=999),
    )
    first, second = (run_on(runtime, task) for _ in range(2))
    assert isinstance(first.error, errors.InstructionLimitExceeded)
    assert observed(first) == observed(second)


def test_the_result_says_that_it_was(runtime: WasmRuntime) -> None:
    result = run_twice(runtime, '(module (func (export "main") (result i32) (i32.const 1)))')
    assert "deterministic" in result.isolation.limits_enforced


def test_only_arms_that_can_keep_it_are_eligible() -> None:
    grant = Grant("p", Trust.UNTRUSTED, Permissions(deterministic=True))
    for language in ("typescript", "javascript", "c-record"):
        assert not split_eligible(ARMS, language, grant, {})[0]
    for language, arm in (("wasm", "wasm/module"), ("python", "wasm/cpython")):
        assert [found.name for found in split_eligible(ARMS, language, grant, {})[0]] == [arm]


@pytest.mark.parametrize("asked", [Permissions(deterministic=True, filesystem=Filesystem(read=("/srv/**",)))])
def test_nothing_is_deterministic_that_reads_what_changes(asked: Permissions) -> None:
    eligible, excluded = split_eligible(ARMS, "wasm", Grant("p", Trust.TRUSTED, asked), {})
    assert not eligible
    assert excluded["wasm/module"]


def test_it_narrows_and_is_never_widened() -> None:
    plain, fixed = Permissions(), Permissions(deterministic=True)
    assert plain.narrowed_to(fixed).deterministic
    assert fixed.narrowed_to(plain).deterministic
    assert plain.excess_over(fixed) == ("deterministic: clocks and randomness not allowed",)
    assert fixed.excess_over(plain) == ()
    assert Permissions.from_dict(fixed.to_dict()) == fixed
    with pytest.raises(errors.InvalidPermissions):
        Permissions(deterministic="yes")  # type: ignore[arg-type]
