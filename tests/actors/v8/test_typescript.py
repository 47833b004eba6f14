"""TypeScript: what takes a real compiler, and errors in the user's lines."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.runtime import PoolSize
from runvisor.actors.v8.runtime import V8Runtime
from runvisor.actors.v8.typescript import TypeScriptCompiler
from runvisor.policies import errors
from runvisor.policies.result import Result
from tests.actors.v8.conftest import Run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("enum Color { Red = 1, Green }\n[Color.Green, Color[1]]", [2, "Red"]),
        ("const enum E { A = 'a' }\nE.A", "a"),
        ("namespace N { export namespace M { export const f = <T>(x: T): T[] => [x] } }\nN.M.f(1)", [1]),
        ("class P { constructor(public a: number, private readonly b = 2) {} sum() { return this.a + this.b } }\n"
         "new P(1).sum()", 3),
        ("function twice(value: any, context: ClassMethodDecoratorContext) {\n"
         "  return function (this: any, n: number) { return value.call(this, n) * 2 } }\n"
         "class D { @twice f(n: number) { return n + 1 } }\nnew D().f(1)", 4),
        ("abstract class A { abstract g(): number; declare z: string; static #n = 3;\n"
         "  static get n() { return A.#n } }\nA.n", 3),
        ("const x = <any>{ a: { b: 1 } } as const; (x!.a satisfies object).b", 1),
        ("function f(a: string): string; function f(a: number): number; function f(a: any) { return a }\nf(1)", 1),
        ("import type { Never } from 'nowhere'\nconst main = async (n: { a: number }): Promise<number> => n.a + 1", 2),
        ("export default (inputs: { a: number }) => inputs.a", 1),
        ("const x: number = await Promise.resolve(4); x", 4),
        ("type Q<T> = T extends string ? 'a' : never; let q: Q<string> = 'a'; q", "a"),
    ],
)  # fmt: skip
def test_the_whole_language(run: Run, code: str, value: Any) -> None:
    assert run(code, {"a": 1}, language="typescript").unwrap() == value


def _error(result: Result) -> errors.RunvisorError:
    assert result.error is not None
    return result.error


def test_an_error_has_the_line_and_column_of_the_source(run: Run) -> None:
    code = "interface A { x: number }\n\nfunction g(a: A): never {\n  throw new TypeError('bad')\n}\ng({ x: 1 } as A)\n"
    error = _error(run(code, language="typescript"))
    assert isinstance(error, errors.GuestException)
    assert error.where == "4:9"
    assert "at g (task.ts:4:9)" in error.details["traceback"]
    assert "task.ts:6:1" in error.details["traceback"]


def test_an_error_behind_top_level_await_has_its_place_too(run: Run) -> None:
    code = "const x: number = await Promise.resolve(4);\n\ninterface Z {}\nconst w = (x as any).foo.bar;"
    assert _error(run(code, language="typescript")).where == "4:26"


def test_what_does_not_parse_has_its_place(run: Run) -> None:
    error = _error(run("let a: number = 1\nlet b: string = ;", language="typescript"))
    assert isinstance(error, errors.GuestSyntaxError)
    assert (error.what, error.where) == ("SyntaxError: Expression expected.", "2:17")


def test_types_are_erased_and_not_checked(run: Run) -> None:
    assert run("const n: number = 'text' as any as number; const s: string = 5; [n, s]", language="typescript").unwrap()


def test_a_source_is_compiled_once_and_only_for_its_principal() -> None:
    compiler = TypeScriptCompiler(max_compilers=2)
    try:
        first = compiler.compile("let x: number = 1", "ann")
        assert compiler.compile("let x: number = 1", "ann") is first
        assert compiler.compile("let x: number = 1", "bob") is not first
        assert len(compiler._children) == 2
        pids = {child.child.pid for child in compiler._children.values() if child.child}
        assert len(pids) == 2
        compiler.compile("1", "cid")
        assert list(compiler._children) == ["bob", "cid"]
    finally:
        compiler.close()


def test_a_compiler_that_dies_is_replaced() -> None:
    compiler = TypeScriptCompiler()
    try:
        compiler.compile("1", "ann")
        child = compiler._children["ann"].child
        assert child is not None
        child.kill()
        child.exit()
        with pytest.raises(errors.GuestCrashed):
            compiler.compile("2", "ann")
        assert compiler.compile("3", "ann").code.startswith("3")
    finally:
        compiler.close()
    with pytest.raises(errors.SpawnFailed):
        compiler.compile("4", "ann")


def test_the_compilers_have_a_new_zygote_when_theirs_has_died() -> None:
    compiler, died = TypeScriptCompiler(), threading.Event()
    try:
        compiler.compile("1", "ann")
        zygote, child = compiler._zygote, compiler._children["ann"].child
        assert zygote is not None
        assert child is not None
        zygote.on_death(died.set)
        os.kill(zygote.pid, signal.SIGKILL)
        assert died.wait(20)
        child.exit()  # told after that
        with pytest.raises(errors.GuestCrashed):
            compiler.compile("2", "ann")
        assert compiler.compile("3", "ann").code.startswith("3")
    finally:
        compiler.close()


def test_a_compiler_that_dies_of_a_source_is_the_tasks_error(runtime: V8Runtime, run: Run) -> None:
    run("1 as number", language="typescript").unwrap()
    child = runtime._typescript._children["tester"].child
    assert child is not None
    child.kill()
    child.exit()
    assert isinstance(run("2 as number", language="typescript").error, errors.GuestCrashed)
    assert run("3 as number", language="typescript").unwrap() == 3


def test_no_compiler_runs_before_there_is_typescript() -> None:
    runtime = V8Runtime(PoolSize(minimum=1, maximum=1))
    runtime.start()
    try:
        assert runtime._typescript._zygote is None
    finally:
        runtime.close()
