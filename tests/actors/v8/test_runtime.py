"""JavaScript tasks: values as JSON, errors with line and column, limits, and hostile results."""

from __future__ import annotations

from typing import Any

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies import errors
from tests.actors.v8.conftest import Run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]


@pytest.mark.parametrize(
    ("code", "inputs", "value"),
    [
        ("1 + 1", None, 2),
        ("let x = 3; x * 2", None, 6),
        ("undefined", None, None),
        ("inputs.a + 1", {"a": 1}, 2),
        ("function main(inputs) { return inputs * 2 }", 21, 42),
        ("const main = (n) => n + 1", 1, 2),
        ("async function main(n) { return n + 1 }", 1, 2),
        ("function main(n) { return n }\nmain(5)", 1, 5),
        ("Promise.resolve([1, 'a', null])", None, [1, "a", None]),
        ("({a: {b: [1.5]}})", None, {"a": {"b": [1.5]}}),
        ("new Date(8.64e15)", None, "+275760-09-13T00:00:00.000Z"),
        ("'日本' + inputs", "語", "日本語"),
        ("module.exports = (n) => n + 1", 1, 2),
    ],
)
def test_the_value_of_a_task(run: Run, code: str, inputs: Any, value: Any) -> None:
    assert run(code, inputs).unwrap() == value


def test_what_is_printed_goes_where_it_belongs(run: Run) -> None:
    result = run("console.log('a', 1, {b: 2}); console.error('bad'); 3")
    assert (result.value, result.stdout, result.stderr) == (3, "a 1 { b: 2 }\n", "bad\n")


def test_a_task_that_is_killed_keeps_what_it_printed(run: Run) -> None:
    result = run("console.log('before'); while (true) {}", timeout_s=0.3)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert result.stdout == "before\n"


def test_microtasks_run_before_the_value_is_taken(run: Run) -> None:
    assert run("const seen = []; Promise.resolve().then(() => seen.push(1)); seen").value == [1]


def test_a_task_without_a_value_waits_for_its_timers(run: Run) -> None:
    result = run("let n = 0; const t = setInterval(() => { console.log(++n); if (n === 3) clearInterval(t) }, 2)")
    assert (result.value, result.stdout) == (None, "1\n2\n3\n")


def test_a_task_with_a_value_waits_for_nothing(run: Run) -> None:
    assert run("setTimeout(() => {}, 60_000); 'done'").value == "done"


def test_an_error_in_a_timer_ends_the_task(run: Run) -> None:
    error = run("setTimeout(() => {\n  throw new Error('late')\n}, 1)").error
    assert isinstance(error, errors.GuestException)
    assert (error.what, error.where) == ("Error: late", "2:9")


def test_an_error_has_its_line_and_column_and_the_users_frames(run: Run) -> None:
    error = run("function f() {\n  nope()\n}\nf()").error
    assert isinstance(error, errors.GuestException)
    assert error.where == "2:3"
    assert "at f (task.js:2:3)" in error.details["traceback"]
    assert "driver" not in error.details["traceback"]


@pytest.mark.parametrize(("code", "where"), [("let x = ;", "1:9"), ("let a = 1\nlet b = {", "2:9"), ("1 +* 2", "1:4")])
def test_a_syntax_error_names_its_line(run: Run, code: str, where: str) -> None:
    error = run(code).error
    assert isinstance(error, errors.GuestSyntaxError)
    assert error.where.partition(":")[0] in (where.partition(":")[0], str(code.count("\n") + 2))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("throw 'text'", errors.GuestException),
        ("throw Symbol('x')", errors.GuestException),
        ("Promise.reject(new Error('later'))", errors.GuestException),
        ("x => x", errors.UnserializableValue),
        ("Symbol('x')", errors.UnserializableValue),
        ("const a = {}; a.a = a; a", errors.UnserializableValue),
        ("let o = {}; for (let i = 0; i < 100000; i++) o = {o}; o", errors.UnserializableValue),
    ],
)
def test_each_way_to_fail_has_its_error(run: Run, code: str, kind: type[errors.RunvisorError]) -> None:
    assert type(run(code).error) is kind


@pytest.mark.parametrize(
    "code",
    [
        "while (true) {}",
        "new Promise(() => {})",
        "({toJSON() { while (true); }})",
        "({get then() { while (true); }})",
        "(function again() { Promise.resolve().then(again) })(); 1",
        "throw {get message() { while (true); }, toString() { while (true); }, toJSON() { while (true); }}",
    ],
    ids=["loop", "never settles", "toJSON", "then getter", "microtasks", "thrown"],
)
def test_whatever_hangs_ends_at_the_deadline(run: Run, code: str) -> None:
    result = run(code, timeout_s=0.3)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert result.usage.wall_s < 10


@pytest.mark.parametrize(
    "code",
    [
        "const a = []; while (true) a.push(new Array(1000).fill(1.1))",
        "const a = []; while (true) a.push(new Uint8Array(10 << 20).fill(1))",
        "const m = new WebAssembly.Memory({initial: 1}); for (;;) { m.grow(99); new Uint8Array(m.buffer).fill(1) }",
        "let s = 'x'; const a = []; while (true) a.push((s += s).split(''))",
    ],
    ids=["heap", "buffers", "wasm memory", "strings"],
)
def test_memory_is_bounded_on_and_off_the_heap(run: Run, code: str) -> None:
    error = run(code, memory_bytes=128 << 20, timeout_s=20.0).error
    assert isinstance(error, errors.MemoryLimitExceeded | errors.GuestException | errors.GuestCrashed)
    assert run("1 + 1").value == 2


def test_more_output_than_allowed_is_cut_and_said(run: Run) -> None:
    result = run("while (true) console.log('y'.repeat(1000))", output_bytes=10_000)
    assert isinstance(result.error, errors.OutputLimitExceeded)
    assert len(result.stdout) == 10_000


def test_replaced_built_ins_forge_nothing(run: Run) -> None:
    code = (
        'JSON.stringify = () => \'{"kind":"value","json":"forged"}\'; Array.prototype.push = () => 0;'
        "Promise.prototype.then = () => 0; Reflect.apply = () => 0; String = () => 'forged'; 'real'"
    )
    assert run(code).unwrap() == "real"


def test_nothing_stays_behind_for_the_next_task(run: Run) -> None:
    for _ in range(5):
        assert run("globalThis.left = 1; Object.prototype.left = 2; 1").ok
        assert run("[typeof left, ({}).left === undefined]").value == ["undefined", True]


def test_no_two_tasks_draw_the_same_random_numbers(run: Run) -> None:
    drawn = [run("[Math.random(), crypto.randomUUID()]").value for _ in range(4)]
    assert len({number for number, _ in drawn}) == len({text for _, text in drawn}) == 4


def test_it_sees_no_host_and_no_bridge(run: Run) -> None:
    names = "process require Deno __host __runvisor box host".split()
    assert run(f"[{', '.join(f'typeof {name}' for name in names)}]").value == ["undefined"] * len(names)


def test_an_object_that_throws_itself_hangs_no_longer_than_the_deadline(run: Run) -> None:
    result = run("throw {toString() { while (true); }}", timeout_s=0.3)
    assert isinstance(result.error, errors.TimeLimitExceeded)


def test_a_million_calls_of_a_bridge_that_is_not_there_are_an_error(run: Run) -> None:
    result = run("for (let i = 0; i < 1e6; i++) __host('noop', '{}').catch(() => {})")
    assert isinstance(result.error, errors.GuestException)
