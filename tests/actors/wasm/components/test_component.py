"""A component's functions are called with typed values, in a fresh instance each time."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
import wasmtime

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies import errors
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from tests.actors.wasm.components.texts import numbers, same
from tests.actors.wasm.conftest import Run, run_on

pytestmark = pytest.mark.root

POINT = '(record (field "x" f64) (field "name" string) (field "mark" (option u8)))'
SHAPE = '(variant (case "empty") (case "circle" f64) (case "path" (list (tuple s16 s16))))'
ROUND_TRIPS: list[tuple[str, list[Any]]] = [
    ("bool", [True, False]),
    ("s8", [-128, 127]),
    ("u16", [0, 65535]),
    ("s32", [-(2**31), 2**31 - 1]),
    ("s64", [-(2**63), 2**63 - 1]),
    ("u64", [0, 2**64 - 1]),
    ("u32", [2**32 - 1]),
    ("s16", [-(2**15)]),
    ("f32", [0.5, -math.inf]),
    ("f64", [math.pi, 1e300]),
    ("char", ["a", "\U0001f600"]),
    ("string", ["", "text \u00e9 \U0001f600", "\0"]),
    ("(list u8)", [b"", b"\0\xff"]),
    ("(list (list f64))", [[], [[1.0], []]]),
    (POINT, [{"x": 1.5, "name": "a", "mark": None}, {"x": 0.0, "name": "", "mark": 7}]),
    ("(tuple u8 string)", [[1, "a"]]),
    (SHAPE, ["empty", {"tag": "circle", "value": 2.5}, {"tag": "path", "value": [[1, -1]]}]),
    ('(enum "red" "green")', ["green", "red"]),
    ("(option string)", [None, "x"]),
    ("(option (option u8))", [None, {"some": None}, {"some": 3}]),
    ("(result u8 (error string))", [{"ok": 1}, {"error": "no"}]),
    ("(result)", [{"ok": None}, {"error": None}]),
    ('(flags "read" "write" "run")', [[], ["read", "run"]]),
]


@pytest.mark.parametrize(("kind", "values"), ROUND_TRIPS, ids=[kind for kind, _ in ROUND_TRIPS])
def test_values_of_every_type_go_in_and_come_out(component: Run, kind: str, values: list[Any]) -> None:
    result = component(same(kind), {"function": "same", "arguments": {"values": values}})
    assert result.unwrap() == values
    assert (result.runtime, result.variant) == ("wasm", "component")


def test_a_list_of_bytes_is_bytes(component: Run) -> None:
    assert component(same("u8"), {"arguments": [[1, 2, 255]]}).unwrap() == b"\1\2\xff"


@pytest.mark.parametrize(
    ("kind", "values", "where", "what"),
    [
        (POINT, [{"x": 1, "name": ""}, {"x": "1", "name": ""}], "arguments.values[1].x", "a text where f64 is due"),
        (POINT, [{"x": 1}], "arguments.values[0]", "name is missing"),
        (POINT, [{"x": 1, "name": "", "z": 1}], "arguments.values[0]", "there is no 'z'"),
        ("u8", [256], "arguments.values[0]", "out of the range of u8"),
        ("u8", [True], "arguments.values[0]", "a truth value where u8 is due"),
        ("f32", [1e300], "arguments.values[0]", "out of the range of f32"),
        ("char", ["ab"], "arguments.values[0]", "2 characters"),
        ("string", [b"x"], "arguments.values[0]", "bytes where string is due"),
        (SHAPE, ["square"], "arguments.values[0]", "there is no 'square'"),
        (SHAPE, ["circle"], "arguments.values[0].value", "nothing where f64 is due"),
        (SHAPE, [{"tag": "empty", "value": 1}], "arguments.values[0].value", "where nothing is due"),
        ('(enum "red")', ["blue"], "arguments.values[0]", "there is no 'blue'"),
        ("(tuple u8 u8)", [[1]], "arguments.values[0]", "1 values where 2 are due"),
        ("(result u8)", [{"ko": 1}], "arguments.values[0]", "a mapping where result<u8, _> is due"),
        ('(flags "read")', [["run"]], "arguments.values[0][0]", "there is no 'run'"),
        ("u8", "no list", "arguments.values", "a text where list<u8> is due"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_their_place(
    component: Run, kind: str, values: Any, where: str, what: str
) -> None:
    with pytest.raises(errors.InvalidTask) as caught:
        component(same(kind), {"arguments": {"values": values}})
    assert caught.value.where == where or not where
    assert what in caught.value.what


@pytest.mark.parametrize(
    ("inputs", "where"),
    [
        ([1], "inputs"),
        ({"call": "run"}, "inputs"),
        ({"function": 1}, "inputs.function"),
        ({"arguments": 1}, "inputs.arguments"),
        ({"function": "walk"}, "function"),
    ],
)
def test_inputs_of_another_form_are_refused(component: Run, inputs: Any, where: str) -> None:
    with pytest.raises(errors.InvalidTask) as caught:
        component(numbers('(func (export "run") (result i32) (i32.const 1))'), inputs)
    assert caught.value.where == where


def test_the_only_function_need_not_be_named_and_bytes_are_run_as_text_is(component: Run) -> None:
    text = numbers('(func (export "run") (result i32) (i32.const 42))')
    assert component(text).unwrap() == 42
    assert component(bytes(wasmtime.wat2wasm(text))).unwrap() == 42


def test_a_function_of_an_exported_interface_is_named_with_it(component: Run) -> None:
    code = numbers(
        '(func (export "run") (result i32) (i32.const 1)) (func (export "two") (result i32) (i32.const 2))',
        more='(func $two (result u32) (canon lift (core func $i "two")))'
        '(instance $api (export "two" (func $two))) (export "docs:tools/api@0.1.0" (instance $api))',
    )
    assert component(code, {"function": "docs:tools/api@0.1.0#two"}).unwrap() == 2
    assert component(code).unwrap() == 1


def test_which_of_several_functions_is_meant_has_to_be_said(component: Run) -> None:
    code = numbers(
        '(func (export "run") (result i32) (i32.const 1))',
        more='(func (export "again") (result u32) (canon lift (core func $i "run")))',
    )
    with pytest.raises(errors.InvalidTask, match="exports 2 functions") as caught:
        component(code)
    assert caught.value.remedy == "name one of run, again"


def test_every_call_has_a_fresh_instance(component: Run) -> None:
    code = numbers(
        '(global $n (mut i32) (i32.const 0)) (func (export "run") (result i32)'
        "(global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))"
    )
    assert [component(code).unwrap() for _ in range(2)] == [1, 1]


ENDLESS = '(func (export "run") (result i32) (loop $l (br $l)) (i32.const 0))'
GROWING = (
    '(func (export "run") (result i32) (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))'
    "(memory.size))"
)


def test_the_time_limit_ends_it_and_the_next_call_works(component: Run) -> None:
    assert isinstance(component(numbers(ENDLESS), timeout_s=0.2).error, errors.TimeLimitExceeded)
    assert component(numbers('(func (export "run") (result i32) (i32.const 1))')).unwrap() == 1


def test_the_instruction_limit_ends_it(component: Run) -> None:
    result = component(numbers(ENDLESS), instructions=10_000)
    assert isinstance(result.error, errors.InstructionLimitExceeded)
    assert "instructions" in result.isolation.limits_enforced


def test_its_memory_does_not_grow_beyond_the_limit(component: Run) -> None:
    pages = component(numbers(GROWING), memory_bytes=8 * MiB).unwrap()
    assert 7 * MiB < pages * 65536 <= 8 * MiB


def test_several_memories_are_refused_for_each_would_have_the_whole_limit(component: Run) -> None:
    more = "(core module $o (memory 1)) (core instance $p (instantiate $o))"
    error = component(numbers('(func (export "run") (result i32) (i32.const 1))', more=more)).error
    assert isinstance(error, errors.MemoryLimitExceeded)
    assert "several linear memories" in error.what


def test_a_trap_is_the_guests_exception(component: Run) -> None:
    error = component(numbers('(func (export "run") (result i32) (unreachable))')).error
    assert isinstance(error, errors.GuestException)
    assert "unreachable" in error.what


IMPORTING = """(component
  (import "{name}" {kind})
  (core module $m (func (export "run")))
  (core instance $i (instantiate $m))
  (func (export "run") (canon lift (core func $i "run"))))"""


@pytest.mark.parametrize(
    ("name", "kind", "named"),
    [
        ("launch", "(func)", "launch"),
        ("wasi:sockets/tcp@0.2.0", '(instance (export "open" (func)))', "wasi:sockets/tcp@0.2.0#open"),
        ("wasi:clocks/wall-clock@0.2.0", '(instance (export "set" (func)))', "wasi:clocks/wall-clock@0.2.0#set"),
        ("wasi:io/streams@0.2.0", '(instance (export "out" (type (sub resource))))', "wasi:io/streams@0.2.0#out"),
    ],
)
def test_an_import_that_there_is_not_is_named(component: Run, name: str, kind: str, named: str) -> None:
    error = component(IMPORTING.format(name=name, kind=kind)).error
    assert isinstance(error, errors.GuestSyntaxError)
    assert error.where == f"import {named}"


def test_it_may_ask_for_the_time_and_print(component: Run) -> None:
    code = """(component
      (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock (export "now" (func (result u64)))))
      (import "print" (func $print (param "to" u32) (param "text" string)))
      (core module $mem (memory (export "memory") 1) (data (i32.const 0) "hello"))
      (core instance $mem (instantiate $mem))
      (core func $print (canon lower (func $print) (memory (core memory $mem "memory"))))
      (core func $now (canon lower (func $clock "now")))
      (core module $m
        (import "h" "print" (func $print (param i32 i32 i32))) (import "h" "now" (func $now (result i64)))
        (func (export "run") (result i64) (call $print (i32.const 1) (i32.const 0) (i32.const 5)) (call $now)))
      (core instance $h (export "print" (func $print)) (export "now" (func $now)))
      (core instance $i (instantiate $m (with "h" (instance $h))))
      (func (export "run") (result u64) (canon lift (core func $i "run"))))"""
    result = component(code)
    assert result.unwrap() > 0
    assert result.stdout == "hello"
    assert component(code, deterministic=True).unwrap() == component(code, deterministic=True).unwrap()
    assert isinstance(component(code, output_bytes=3).error, errors.OutputLimitExceeded)


@pytest.mark.parametrize(
    ("code", "what"),
    [("(component (nonsense))", ""), ("(module)", "core module"), (b"\0asm\x0d\0\1\0\xff", ""), (b"text", "begin")],
)
def test_what_is_no_component_is_a_syntax_error(component: Run, code: str | bytes, what: str) -> None:
    error = component(code).error
    assert isinstance(error, errors.GuestSyntaxError)
    assert what in error.what


def test_a_value_that_is_too_large_ends_the_call_and_the_next_works(component: Run) -> None:
    code = numbers(
        '(func (export "run") (result i32) (i32.store (i32.const 20) (i32.const 65536)) (i32.const 16))'
    ).replace(
        '(canon lift (core func $i "run"))', '(canon lift (core func $i "run") (memory (core memory $i "memory")))'
    )
    large = code.replace('(memory (export "memory") 1)', '(memory (export "memory") 800)').replace(
        "(i32.const 65536)) (i32.const 16)", "(i32.const 50000000)) (i32.const 16)"
    )
    assert len(component(code.replace("(result u32)", "(result (list u8))")).unwrap()) == 65536
    error = component(large.replace("(result u32)", "(result (list u8))")).error
    assert isinstance(error, errors.OutputLimitExceeded)
    assert component(code.replace("(result u32)", "(result (list u8))")).unwrap()[:2] == b"\0\0"


def test_its_types_describe_it_as_a_tool_without_running_it(component: Run) -> None:
    (tool,) = component(same(SHAPE), {"describe": True}).unwrap()["tools"]
    assert tool["name"] == "same"
    assert tool["description"].startswith("same: func(values: list<variant { empty, circle(f64)")
    schema = tool["input_schema"]
    assert schema["required"] == ["values"]
    assert schema["properties"]["values"]["items"]["anyOf"][0] == {"const": "empty"}


def test_a_component_that_was_pushed_out_by_others_is_loaded_again(component: Run) -> None:
    codes = [numbers(f'(data (i32.const 0) "x") (func (export "run") (result i32) (i32.const {n}))') for n in range(12)]
    assert [component(code).unwrap() for code in codes + codes] == [*range(12), *range(12)]


def test_types_that_unfold_without_end_are_refused_when_it_is_loaded(component: Run) -> None:
    nested = "".join(f"(type $t{n} (tuple $t{n - 1} $t{n - 1}))" for n in range(1, 17))
    code = (
        f'(component (type $t0 (tuple u8 u8)) {nested} (core module $m (memory (export "memory") 1)'
        '(func (export "run") (result i32) (i32.const 0))) (core instance $i (instantiate $m))'
        '(func (export "run") (result $t16)'
        '(canon lift (core func $i "run") (memory (core memory $i "memory")))))'
    )
    error = component(code).error
    assert isinstance(error, errors.GuestSyntaxError)
    assert "too large" in error.what


def test_a_component_called_a_module_is_told_what_it_is(runtime: WasmRuntime) -> None:
    error = run_on(runtime, Task(b"\0asm\x0d\0\1\0", "wasm")).error
    assert isinstance(error, errors.GuestSyntaxError)
    assert "component" in error.remedy


def test_a_start_function_is_bound_by_the_time_limit_too(component: Run) -> None:
    code = numbers('(func $spin (loop $l (br $l))) (start $spin) (func (export "run") (result i32) (i32.const 1))')
    assert isinstance(component(code, timeout_s=0.2).error, errors.TimeLimitExceeded)


def test_a_resource_can_not_be_given_and_its_function_says_so(component: Run) -> None:
    more = (
        '(type $r (resource (rep i32))) (export $file "file" (type $r)) (core func $drop (canon resource.drop $r))'
        '(func (export "close") (param "it" (own $file)) (canon lift (core func $i "close")))'
    )
    code = numbers('(func (export "run") (result i32) (i32.const 1)) (func (export "close") (param i32))', more=more)
    assert component(code).unwrap() == 1
    assert component(code, {"describe": True}).unwrap()["not_callable"] == {"close": "it takes or gives a resource"}
    with pytest.raises(errors.InvalidTask, match="cannot be called"):
        component(code, {"function": "close", "arguments": [1]})


def test_another_principal_runs_it_in_an_engine_process_of_its_own(component: Run) -> None:
    code = numbers('(func (export "run") (result i32) (i32.const 1))')
    assert component(code, principal="one").unwrap() == component(code, principal="two").unwrap() == 1


def test_a_call_is_called_off(runtime: WasmRuntime) -> None:
    cancellation = Cancellation()
    task = Task(numbers(ENDLESS), "component", None, Permissions(timeout_s=30.0))
    watch = Watch(lambda: threading.Timer(0.1, cancellation.cancel).start(), cancellation=cancellation)
    result = runtime.execute(task, "component", Grant("tester", Trust.UNTRUSTED, task.permissions), watch)
    assert isinstance(result.error, errors.Cancelled)
    assert result.usage.wall_s < 10
