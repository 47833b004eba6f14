"""JavaScript on QuickJS: values, output, errors, limits, and nothing that one run leaves to another."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies import errors
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from tests.actors.wasm.conftest import Run, run_on

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("20 + 22", 42),
        ("const main = (inputs) => inputs.n * 2", 42),
        ("function main(inputs) { return inputs.n * 2 }", 42),
        ("async function main(inputs) { await null; return inputs.n * 2 }", 42),
        ("export default (inputs) => inputs.n * 2", 42),
        ("export default 42", 42),
        ("export const main = async (inputs) => inputs.n * 2; await null", 42),
        ("const half = await Promise.resolve(inputs.n);\nhalf * 2", 42),
        ("function main() { return 1 }\nmain() + 41", 42),
        ("new Promise((resolve) => setTimeout(() => resolve(42), 5))", 42),
        ("let seen = 0; queueMicrotask(() => { seen = 42 }); ({ get seen() { return seen } })", {"seen": 42}),
        ("undefined", None),
        ("let x = 5", None),
    ],
)
def test_the_value_is_that_of_main_or_of_the_last_expression(js: Run, code: str, value: Any) -> None:
    assert js(code, {"n": 21}).unwrap() == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1.5,
        "é😀\0",
        [1, [2, {"a": None}]],
        {"b": b"\0\xff", "t": ""},
        2**70,
        -(2**53),
        b"",
        "x" * 100_000,
    ],
)
def test_values_come_back_as_they_went_in(js: Run, value: Any) -> None:
    assert js("inputs", value).unwrap() == value


def test_what_json_cannot_say_crosses_too(js: Run) -> None:
    value = js(
        "[inputs[0].length, inputs[1] === Infinity, typeof inputs[2], inputs[0]]", [np.arange(3.0), float("inf"), 2**60]
    )
    length, is_infinite, kind, array = value.unwrap()
    assert (length, is_infinite, kind) == (3, True, "bigint")
    assert array.tolist() == [0.0, 1.0, 2.0]
    code = "[NaN, -Infinity, 10n ** 20n, new Map([['a', 1]]), new Set([2]), new Uint8Array([3]), new Date(0)]"
    expected = [None, None, 10**20, {"a": 1}, [2], b"\3", "1970-01-01T00:00:00.000Z"]
    assert js(code).unwrap() == expected


def test_a_value_that_looks_like_a_mark_is_a_value(js: Run) -> None:
    code = "const o = {}; for (const k of ['token', 'rv1.2', '']) o[k] = ['ff', 0]; [o, 1n]"
    assert js(code).unwrap() == [{"token": ["ff", 0], "rv1.2": ["ff", 0], "": ["ff", 0]}, 1]


@pytest.mark.parametrize("code", ["() => 1", "Symbol()", "const a = []; a.push(a); a", "'\\ud800'"])
def test_a_value_that_cannot_leave_says_so(js: Run, code: str) -> None:
    assert isinstance(js(code).error, errors.UnserializableValue)


def test_the_console_prints_as_it_does_on_v8(js: Run) -> None:
    code = """console.log('a %d', 1, [1, { b: new Map([[1, 'x']]) }]); console.error('bad'); console.table([{ c: 1 }]);
console.log('\\ud800'); setTimeout(() => console.log('late'), 1)"""
    result = js(code)
    assert result.error is None
    assert result.stdout.startswith("a 1 [ 1, { b: Map(1) { 1 => 'x' } } ]\n┌")
    assert result.stdout.endswith("late\n")
    assert result.stderr == "bad\n"


def test_an_error_names_the_line_and_the_frames_of_the_program_only(js: Run) -> None:
    error = js("function f(x) {\n  return x.y.z;\n}\n[1].map(f)").error
    assert isinstance(error, errors.GuestException)
    assert error.what.startswith("TypeError: ")
    assert error.where == "2:10"
    frames = error.details["traceback"].splitlines()[1:]
    assert len(frames) == 2
    assert all("task.js:" in frame for frame in frames)


@pytest.mark.parametrize(
    ("code", "kind", "what"),
    [
        ("let x = ;", errors.GuestSyntaxError, "SyntaxError"),
        ("await (1 +", errors.GuestSyntaxError, "SyntaxError"),
        ("JSON.parse('{')", errors.GuestException, "SyntaxError"),
        ("throw new RangeError('no')", errors.GuestException, "RangeError: no"),
        ("throw { code: 7 }", errors.GuestException, "threw { code: 7 }"),
        ("Promise.reject(new Error('later'))", errors.GuestException, "Error: later"),
        ("new Promise(() => {})", errors.GuestException, "nothing will settle"),
        ("import x from 'y'", errors.GuestException, "y"),
        ("(function f() { f() })()", errors.GuestException, "RangeError: Maximum call stack"),
    ],
)
def test_what_goes_wrong_is_the_programs_own_error(js: Run, code: str, kind: type, what: str) -> None:
    error = js(code).error
    assert type(error) is kind
    assert what in error.what


def test_deep_recursion_is_possible_and_its_end_can_be_caught(js: Run) -> None:
    assert js("const down = (n) => n === 0 ? 0 : 1 + down(n - 1); down(9000)").unwrap() == 9000
    assert js("let n = 0; const f = () => { n++; f() }; try { f() } catch { }; n > 9000").unwrap() is True


def test_an_infinite_loop_ends_at_its_deadline(js: Run) -> None:
    result = js("console.log('begun'); while (true);", timeout_s=0.1)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert result.stdout == "begun\n"
    assert isinstance(
        js("await new Promise((r) => setTimeout(r, 60000))", timeout_s=0.1).error, errors.TimeLimitExceeded
    )
    assert isinstance(js("const f = () => setTimeout(f, 0); f()", timeout_s=0.1).error, errors.TimeLimitExceeded)


def test_memory_output_and_value_are_bounded(js: Run) -> None:
    for code in (
        "const a = []; while (true) a.push(new Uint8Array(1 << 20))",
        "let s = []; while (true) s.push({ s })",
    ):
        assert isinstance(js(code, memory_bytes=32 * MiB).error, errors.MemoryLimitExceeded)
    assert isinstance(js("1", memory_bytes=1 * MiB).error, errors.MemoryLimitExceeded)
    result = js("while (true) console.log('x'.repeat(100))", output_bytes=1000)
    assert isinstance(result.error, errors.OutputLimitExceeded)
    assert len(result.stdout) == 1000
    assert isinstance(js("'x'.repeat(2000)", output_bytes=1000).error, errors.OutputLimitExceeded)


def test_instructions_are_counted_and_bounded(js: Run) -> None:
    code = "let s = 0; for (let i = 0; i < 1000; i++) s += i; s"
    counts = {js(code, instructions=10**9).usage.instructions for _ in range(3)}
    assert len(counts) == 1
    error = js("while (true);", instructions=10**6).error
    assert isinstance(error, errors.InstructionLimitExceeded)
    assert "instructions" in js("1", instructions=10**9).isolation.limits_enforced


def test_nothing_of_a_run_is_left_to_the_next(js: Run) -> None:
    js("globalThis.left = 1; Object.prototype.left = 1; Array.prototype.map = null; Math.random = () => 4", {"x": 1})
    assert js("[typeof left, {}.left, [1].map((x) => x), inputs, Math.random() < 1]").unwrap() == [
        "undefined",
        None,
        [1],
        None,
        True,
    ]


def test_every_run_draws_other_random_numbers(js: Run) -> None:
    assert len({js("Math.random()").unwrap() for _ in range(10)}) == 10


def test_a_program_that_turns_its_world_upside_down_ends_all_the_same(js: Run) -> None:
    hostile = [
        "JSON.stringify = () => { throw 1 }; Object.prototype.toJSON = () => 1; Promise.prototype.then = 5; [1]",
        "Object.defineProperty(Object.prototype, 'kind', { set() { throw 1 } }); ({})",
        "Array.prototype[Symbol.iterator] = null; Reflect.apply = null; console.log([1, { a: 2 }])",
        "for (const k of Reflect.ownKeys(globalThis)) { try { delete globalThis[k] } catch {} } 5",
        "({ then(resolve) { resolve({ then(r) { r(7) } }) } })",
        "new Proxy({}, { ownKeys() { throw new Error('trap') } })",
        "({ get a() { while (true); } })",
    ]
    for code in hostile:
        result = js(code, timeout_s=0.3)
        assert result.error is None or isinstance(result.error, errors.GuestError | errors.LimitExceeded)
    assert js("6 * 7").unwrap() == 42


def test_runs_in_parallel_keep_apart(js: Run) -> None:
    values: dict[int, Any] = {}

    def run(number: int) -> None:
        result = js(f"let s = 0; for (let i = 0; i < 20000; i++) s += {number}; console.log({number}); s")
        values[number] = (result.unwrap(), result.stdout)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == {number: (20000 * number, f"{number}\n") for number in range(6)}


def test_modules_cannot_import_what_the_interpreter_does(runtime: WasmRuntime, js: Run) -> None:
    js("1")  # the interpreter's imports are there now
    text = '(module (import "env" "host_call" (func (param i32 i32 i32 i32 i32) (result i32))) (func (export "run")))'
    result = run_on(runtime, Task(text, "wat"))
    assert isinstance(result.error, errors.GuestSyntaxError)


def test_what_is_printed_arrives_as_it_is_printed_and_the_run_can_be_called_off(runtime: WasmRuntime, js: Run) -> None:
    js("1")
    heard: list[tuple[int, bytes]] = []
    cancellation = Cancellation()

    def output(stream: int, data: bytes) -> None:
        heard.append((stream, data))
        cancellation.cancel()

    task = Task("console.log('now'); while (true);", "javascript", None, Permissions(timeout_s=30.0))
    grant = Grant("tester", Trust.UNTRUSTED, task.permissions)
    began = time.monotonic()
    result = runtime.execute(task, "quickjs", grant, Watch(output=output, cancellation=cancellation))
    assert isinstance(result.error, errors.Cancelled)
    assert heard == [(1, b"now\n")]
    assert result.stdout == "now\n"
    assert time.monotonic() - began < 10


def test_a_wait_for_a_timer_can_be_called_off(runtime: WasmRuntime, js: Run) -> None:
    js("1")
    cancellation = Cancellation()
    task = Task("console.log(1); await new Promise((r) => setTimeout(r, 25000))", "javascript")
    grant = Grant("tester", Trust.UNTRUSTED, task.permissions)
    watch = Watch(output=lambda stream, data: cancellation.cancel(), cancellation=cancellation)
    began = time.monotonic()
    assert isinstance(runtime.execute(task, "quickjs", grant, watch).error, errors.Cancelled)
    assert time.monotonic() - began < 15
