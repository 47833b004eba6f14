"""Native CPython and CPython in wasm answer portable programs alike: value, output, kind and line of an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.wasm.cpython import execution
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies.portable.check import objection
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from tests.actors.wasm.cpython.generated import programs
from tests.actors.wasm.cpython.programs import PROGRAMS

pytestmark = pytest.mark.root

Both = Callable[[str, Any], tuple[Result, Result]]


@pytest.fixture(scope="module")
def both(runtime: WasmRuntime) -> Iterator[Both]:
    if (why := execution.unavailable()) is not None:
        pytest.skip(why)
    native = PythonRuntime(PoolSize(minimum=1, maximum=2), profile="bare")
    native.start()

    def run(code: str, inputs: Any = None) -> tuple[Result, Result]:
        task = Task(code, "python", inputs)
        grant = Grant("tester", Trust.UNTRUSTED, task.permissions)
        first = native.execute(task, "native", grant, Watch(lambda: None))
        return first, runtime.execute(task, "cpython", grant, Watch(lambda: None))

    yield run
    native.close()


def answer(result: Result) -> Any:
    """What must be alike; the texts of errors are each version's own."""
    error = result.error
    what = None if error is None else (type(error).__name__, error.what.partition(":")[0], error.where)
    return what, same(result.value), result.stdout


def same(value: Any) -> Any:
    """Let NaN equal NaN, and 1 differ from 1.0 and True."""
    if isinstance(value, dict):
        return [(same(key), same(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [same(item) for item in value]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value.hex()
    return type(value).__name__, value


@pytest.mark.parametrize(("code", "inputs"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_portable_program_is_answered_alike(both: Both, code: str, inputs: Any) -> None:
    assert objection(code) is None
    native, wasm = both(code, inputs)
    assert answer(wasm) == answer(native)


def test_there_are_sixty_programs_and_more() -> None:
    assert len(PROGRAMS) >= 60


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_generated_programs_are_answered_alike(both: Both, code: str) -> None:
    _agree(both, code)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_many_generated_programs_are_answered_alike(both: Both, code: str) -> None:
    _agree(both, code)


# What 3.11 does not know as a character (Cn) is shown otherwise by repr in 3.14.
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cn")))


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT | st.integers(), inner),
))  # fmt: skip
def test_any_value_goes_in_and_comes_out_alike(both: Both, value: Any) -> None:
    native, wasm = both("[inputs, repr(inputs)]", value)
    assert answer(wasm) == answer(native)


def _agree(both: Both, code: str) -> None:
    assume(objection(code) is None)
    native, wasm = both(code, None)
    assert answer(wasm) == answer(native), code
