"""Cells that share an isolate: what stays, what may be said again, and how one is interrupted."""

from __future__ import annotations

import select
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.session import JailedSession
from runvisor.actors.runtime import Cell, OpenSession, Watch
from runvisor.actors.v8.runtime import V8Runtime
from runvisor.policies import errors
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Packed, pack

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
RunCell = Callable[..., Result]


def _open(runtime: V8Runtime, language: str) -> OpenSession:
    task = Task("0", language, None, Permissions(), Trust.UNTRUSTED)
    return runtime.open_session(task, "isolate", Grant("tester", Trust.UNTRUSTED, Permissions()))


@pytest.fixture
def session(runtime: V8Runtime) -> Iterator[OpenSession]:
    session = _open(runtime, "javascript")
    yield session
    session.close()


@pytest.fixture
def cell(session: OpenSession) -> RunCell:
    def cell(code: str, inputs: Any = None, watch: Watch | None = None) -> Result:
        return session.run(Cell(code, Packed(pack(inputs))), watch or Watch())

    return cell


def test_what_a_cell_declares_stays(cell: RunCell) -> None:
    cell("let a = 1; const b = 2; var c = 3; function f() { return a + b + c } class D { v() { return f() } }")
    assert cell("new D().v()").unwrap() == 6
    cell("a = 10")
    assert cell("f()").unwrap() == 15


def test_what_was_declared_may_be_declared_again(cell: RunCell) -> None:
    for value in (1, 2):
        cell(f"const x = {value}; let y; class K {{ static v = {value} }}").unwrap()
        assert cell("[x, y === undefined, K.v]").unwrap() == [value, True, value]
        cell("y = 5")


@pytest.mark.parametrize(
    ("code", "then", "value"),
    [
        ("const x = await Promise.resolve(3)", "x", 3),
        ("const {p, ...q} = await {p: 1, r: 2}, [s = 4] = []", "[p, q, s]", [1, {"r": 2}, 4]),
        ("let later; await 1", "later === undefined", True),
        ("await 1\nfunction g() { return 'g' }\nclass C {}", "[g(), typeof C]", ["g", "function"]),
        (
            "globalThis.n = 0; setInterval(() => { n++ }, 1); await 1",
            "await new Promise((d) => setInterval(() => { if (n > 2) d() }, 1)); n > 2",
            True,
        ),
    ],
)
def test_top_level_await(cell: RunCell, code: str, then: str, value: Any) -> None:
    cell(code).unwrap()
    assert cell(then).unwrap() == value


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("1 + 1", 2),
        ("const z = 1", None),
        ("const z = 1; z + 1", 2),
        ("await 5", 5),
        ("if (true) { 7 }", 7),
        ("inputs.a", 1),
    ],
)
def test_the_value_of_a_cell_is_its_last_expression(cell: RunCell, code: str, value: Any) -> None:
    assert cell(code, {"a": 1}).unwrap() == value


def test_an_error_ends_the_cell_and_not_the_session(cell: RunCell) -> None:
    cell("let kept = 1")
    error = cell("const w = 2;\n  nope()").error
    assert isinstance(error, errors.GuestException)
    assert error.where == "2:3"
    assert isinstance(cell("let = ;").error, errors.GuestSyntaxError)
    assert cell("kept + w").unwrap() == 3


@pytest.mark.parametrize(
    "code",
    ["console.log(1); while (true) {}", "console.log(1); await new Promise(() => {})",
     "setTimeout(() => { console.log(1); while (true) {} }, 1); await new Promise(() => {})"],
    ids=["loop", "promise", "timer"],
)  # fmt: skip
def test_an_interrupt_ends_the_cell_and_not_the_session(cell: RunCell, code: str) -> None:
    cell("let kept = 1")
    printed = threading.Event()
    watch = Watch(output=lambda stream, data: printed.set())
    ending = threading.Thread(target=lambda: (printed.wait(10), watch.cancellation.cancel()))
    ending.start()
    result = cell(code, watch=watch)
    ending.join()
    assert isinstance(result.error, errors.GuestInterrupted | errors.Cancelled)
    assert cell("kept + 1").unwrap() == 2


def test_an_abandoned_promise_speaks_into_no_later_cell(cell: RunCell) -> None:
    printed = threading.Event()
    watch = Watch(output=lambda stream, data: printed.set())
    ending = threading.Thread(target=lambda: (printed.wait(10), watch.cancellation.cancel()))
    ending.start()
    cell("let settle; await new Promise((done) => { settle = done; console.log(1) })", watch=watch)
    ending.join()
    assert cell("settle('old'); 'new'").unwrap() == "new"


def test_an_interrupt_between_cells_hits_none(session: OpenSession, cell: RunCell) -> None:
    assert isinstance(session, JailedSession)
    cell("1").unwrap()
    signal.pidfd_send_signal(session._child.pidfd, signal.SIGINT)
    assert cell("await new Promise((done) => setTimeout(() => done('whole'), 20))").unwrap() == "whole"


def test_telling_a_value_changes_no_built_in(cell: RunCell) -> None:
    assert cell("[new Map([['a', 1n]])]").unwrap() == [{"a": 1}]
    assert cell("[JSON.stringify(new Map([['a', 1]])), 'toJSON' in BigInt.prototype]").unwrap() == ["{}", False]


def test_sessions_see_nothing_of_each_other(runtime: V8Runtime, cell: RunCell) -> None:
    cell("globalThis.secret = 1")
    other = _open(runtime, "javascript")
    try:
        assert other.run(Cell("typeof secret", Packed(pack(None))), Watch()).unwrap() == "undefined"
    finally:
        other.close()


def test_cells_in_typescript(runtime: V8Runtime) -> None:
    session = _open(runtime, "typescript")
    try:
        session.run(Cell("enum E { A = 4 }\nlet x: number = E.A", Packed(pack(None))), Watch()).unwrap()
        assert session.run(Cell("const y: number = x + 1; y as number", Packed(pack(None))), Watch()).unwrap() == 5
        error = session.run(
            Cell("interface Z {}\n\nconst q: string = (x as any).a.b", Packed(pack(None))), Watch()
        ).error
        assert error is not None
        assert error.where.startswith("3:")
        assert isinstance(session.run(Cell("let q: = 1", Packed(pack(None))), Watch()).error, errors.GuestSyntaxError)
        assert session.run(Cell("x", Packed(pack(None))), Watch()).unwrap() == 4
    finally:
        session.close()


def test_a_session_burns_nothing_between_its_cells(cell: RunCell) -> None:
    cell("1").unwrap()
    select.select([], [], [], 0.3)
    used_s = cell("2").usage.cpu_s
    assert used_s is not None
    assert used_s < 0.06
