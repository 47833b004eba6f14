"""Long texts reach the isolate whole, whatever is in them, and whatever a task has done to the built-ins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.runtime import Cell, PoolSize, Watch
from runvisor.actors.v8.runtime import V8Runtime
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Packed, pack
from tests.actors.executing import execute

pytestmark = pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail)

LONG = 'a\u00e9\u4e2d\U0001f600"\\\n\u2028\0' * 1000


@pytest.fixture(scope="module")
def v8() -> Iterator[V8Runtime]:
    runtime = V8Runtime(PoolSize(1, 3))
    runtime.start()
    yield runtime
    runtime.close()


@pytest.mark.parametrize("value", [LONG, {"text": LONG}, [LONG, 1], "{" * 5000, "x" * 2047, "x" * 2048])
def test_it_arrives_and_leaves_as_it_was(v8: V8Runtime, value: object) -> None:
    assert execute(v8, "inputs", "javascript", "isolate", inputs=value).unwrap() == value


def test_long_code_runs(v8: V8Runtime) -> None:
    code = f"const text = {LONG!r};\n".replace("\\U0001f600", "\\u{1f600}") + "text.length"
    assert execute(v8, code, "javascript", "isolate").unwrap() == len(LONG) + 1000  # the emoji is two units


def test_setters_on_the_array_prototype_see_nothing_of_it(v8: V8Runtime) -> None:
    permissions = Permissions()
    session = v8.open_session(Task("-", "javascript"), "isolate", Grant("tester", Trust.UNTRUSTED, permissions))
    try:
        trap = (
            "var seen = [];"
            "for (const i of [0, 1]) Object.defineProperty(Array.prototype, i, "
            "{ set(v) { seen.push(v); }, get() { return 'forged'; }, configurable: true }); 0"
        )
        for code, inputs in ((trap, None), ("inputs.length", LONG), ("seen.length", LONG)):
            result = session.run(Cell(code, Packed(pack(inputs))), Watch())
            assert result.error is None, result.error
        assert result.value == 0
    finally:
        session.close()
