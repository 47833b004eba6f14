"""V8 and QuickJS give equal answers to what the profile lets through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from runvisor.actors.runtime import PoolSize
from runvisor.actors.v8.runtime import V8Runtime
from runvisor.policies.javascript.profile import objections
from runvisor.policies.result import Result
from tests.actors.executing import execute
from tests.actors.wasm.conftest import Run
from tests.actors.wasm.javascript.corpus import CORPUS
from tests.actors.wasm.javascript.programs import programs

pytestmark = pytest.mark.root

Both = Callable[..., tuple[Result, Result]]


@pytest.fixture(scope="module")
def both(js: Run) -> Iterator[Both]:
    v8 = V8Runtime(PoolSize(minimum=4, maximum=6))
    v8.start()

    def run(code: str, inputs: Any = None) -> tuple[Result, Result]:
        return execute(v8, code, "javascript", "isolate", inputs), js(code, inputs)

    yield run
    v8.close()


def told(result: Result) -> Any:
    """Return what must be equal: value, output, and the kind and name of an error."""
    error = result.error
    kind = None if error is None else (type(error), error.what.partition(":")[0])
    return plain(result.value), result.stdout, result.stderr, kind


def own_words(code: str, result: Result) -> str:
    """Return what the program itself says when it throws; the engines' own words differ."""
    what = result.error.what if result.error is not None else ""
    message = what.partition(": ")[2] or what.removeprefix("threw ")
    return what if "throw" in code and message[:6] in code else ""


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.tolist())
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return [(key, plain(item)) for key, item in value.items()]  # the order counts too
    return (type(value).__name__, value)


@pytest.mark.parametrize(("code", "inputs"), CORPUS, ids=range(len(CORPUS)))
def test_a_known_program_gets_the_same_answer(both: Both, code: str, inputs: Any) -> None:
    check(both, code, inputs)


def check(both: Both, code: str, inputs: Any = None) -> None:
    found = objections(code)
    assert (found.absent, found.unequal) == ("", "")
    on_v8, on_quickjs = both(code, inputs)
    assert told(on_quickjs) == told(on_v8)
    assert own_words(code, on_quickjs) == own_words(code, on_v8)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(programs())
def test_a_generated_program_gets_the_same_answer(both: Both, code: str) -> None:
    check(both, code)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(programs())
def test_very_many_generated_programs_get_the_same_answers(both: Both, code: str) -> None:
    check(both, code)


_NAMES = """
const names = new Set(), seen = new Set();
const IGNORED = ['inputs', 'constructor', 'prototype'];
const visit = (path, object) => {
  if ((typeof object !== 'object' && typeof object !== 'function') || object === null || seen.has(object)) return;
  seen.add(object);
  for (const key of Reflect.ownKeys(object)) {
    const slot = Object.getOwnPropertyDescriptor(object, key);
    if (typeof key === 'symbol' || IGNORED.includes(key)) continue;
    if (typeof object === 'function' && ['length', 'name', 'arguments', 'caller'].includes(key)) continue;
    names.add(path ? path + '.' + key : key);
    if (!(path === '' && key === 'Intl') && slot.value) visit(path ? path + '.' + key : key, slot.value);
  }
  if (typeof object === 'function' && object.prototype) visit(path + '.prototype', object.prototype);
};
for (const key of Reflect.ownKeys(globalThis)) try { globalThis[key] } catch {}
visit('', globalThis);
[...names]
"""


def test_every_name_that_only_one_engine_has_is_outside_of_the_profile(both: Both) -> None:
    on_v8, on_quickjs = (set(map(str, result.unwrap())) for result in both(_NAMES))
    outside = {"Error.prototype.stack"}  # a getter there, a property of each error here; `.stack` is looked for
    strangers = []
    for name in sorted((on_v8 ^ on_quickjs) - outside):
        if name.startswith("__core-js"):  # the inner workings of URL, where it is loaded only when it is used
            continue
        last = name.rpartition(".")[2]
        found = [objections(text) for text in (name.replace(".prototype", ""), f"x.{last}(y)", name.split(".")[0])]
        if not any(item.absent or item.unequal for item in found):
            strangers.append(name)
    assert strangers == [], ", ".join(strangers)
    assert len(on_v8 & on_quickjs) > 500
