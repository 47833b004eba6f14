"""The console shows values as Node.js does."""

from __future__ import annotations

import pytest

from runvisor.actors.jail.probe import probe_jail
from tests.actors.v8.conftest import Run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]

SHOWN = [
    ("1, -0, 10n, true, null, undefined", "1 -0 10n true null undefined"),
    ("'text', ['text']", "text [ 'text' ]"),
    ("[\"it's\", 'a\\nb']", "[ \"it's\", 'a\\nb' ]"),
    ("{a: 1, 'b-c': [1, 2], f() {}}", "{ a: 1, 'b-c': [ 1, 2 ], f: [Function: f] }"),
    ("new Map([['k', {x: 1}]]), new Set([1, 'a'])", "Map(1) { 'k' => { x: 1 } } Set(2) { 1, 'a' }"),
    ("{a: {b: {c: {d: 1}}}}", "{ a: { b: { c: [Object] } } }"),
    ("[, 1, , ,]", "[ <1 empty item>, 1, <2 empty items> ]"),
    (
        "class A {}, class extends Array {}, () => 1, async function go() {}",
        "[class A] [class (anonymous) extends Array] [Function (anonymous)] [AsyncFunction: go]",
    ),
    ("new (class Point { x = 1 })(), Object.create(null)", "Point { x: 1 } [Object: null prototype] {}"),
    (
        "new Uint8Array([1, 2]), new Date(0), /x/g, Symbol('s')",
        "Uint8Array(2) [ 1, 2 ] 1970-01-01T00:00:00.000Z /x/g Symbol(s)",
    ),
    ("{get a() { return 1 }, set a(v) {}, [Symbol('k')]: 1}", "{ a: [Getter/Setter], [Symbol(k)]: 1 }"),
    ("'%s is %d, %i, %j, %o%%', 'x', '4.5', 4.9, {a: 1}, [1], 'rest'", 'x is 4.5, 4, {"a":1}, [ 1 ]% rest'),
]


@pytest.mark.parametrize(("items", "line"), SHOWN)
def test_values_are_shown(run: Run, items: str, line: str) -> None:
    assert run(f"console.log({items})").stdout == line + "\n"


def test_web_objects_show_what_they_hold(run: Run) -> None:
    result = run("console.log(new Headers({A: '1'}), new URLSearchParams('a=1')); console.log(new URL('http://h/p'))")
    first, *url = result.stdout.splitlines()
    assert first == "Headers { a: '1' } URLSearchParams { a: '1' }"
    assert url[:2] == ["URL {", "  href: 'http://h/p',"]
    assert "status: 201," in run("console.log(new Response(null, {status: 201}))").stdout


def test_circles_are_marked(run: Run) -> None:
    assert run("const a = {}; a.self = a; console.log(a)").stdout == "<ref *1> { self: [Circular *1] }\n"


def test_long_objects_take_a_line_per_property(run: Run) -> None:
    code = "console.log({first: 'a'.repeat(40), second: 'b'.repeat(40)})"
    assert run(code).stdout == f"{{\n  first: '{'a' * 40}',\n  second: '{'b' * 40}'\n}}\n"


def test_an_error_is_shown_with_the_users_frames_only(run: Run) -> None:
    result = run("function f() { return new TypeError('bad') }\nconsole.log(f())")
    assert result.stdout.startswith("TypeError: bad\n    at f (task.js:1:23)\n    at eval (task.js:2:13)")
    assert "<anonymous>" not in result.stdout


def test_groups_are_indented(run: Run) -> None:
    code = "console.log('a'); console.group('g'); console.log('b\\nc'); console.groupEnd(); console.log('d')"
    assert run(code).stdout == "a\ng\n  b\n  c\nd\n"


def test_counts_and_assertions(run: Run) -> None:
    result = run("console.count(); console.count(); console.assert(1 > 2, 'no'); console.assert(true)")
    assert (result.stdout, result.stderr) == ("default: 1\ndefault: 2\n", "Assertion failed: no\n")


def test_a_table(run: Run) -> None:
    assert run("console.table([{a: 1, b: 'x'}, {a: 2}])").stdout == (
        "┌─────────┬───┬─────┐\n"
        "│ (index) │ a │ b   │\n"
        "├─────────┼───┼─────┤\n"
        "│ 0       │ 1 │ 'x' │\n"
        "│ 1       │ 2 │     │\n"
        "└─────────┴───┴─────┘\n"
    )


def test_text_of_any_length_and_any_character_arrives_whole(run: Run) -> None:
    text = "日本😀" * 100_000
    result = run("console.log(inputs)", text, output_bytes=4 << 20)
    assert result.stdout == text + "\n"


def test_a_hostile_value_harms_only_its_own_task(run: Run) -> None:
    code = "console.log({get a() { throw 1 }}, new Proxy({}, {ownKeys() { throw new Error('trap') }}))"
    assert run(code).error is not None
    assert run("1 + 1").value == 2
