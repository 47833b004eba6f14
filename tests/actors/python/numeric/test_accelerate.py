"""An accelerated program looks like the program: functions, names, tracebacks, sessions, interrupts, threads."""

from __future__ import annotations

import ast
import inspect
import linecache
import math
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from runvisor.actors.python.numeric.accelerate import Accelerator
from runvisor.actors.python.numeric.engine import Engine, process_engine
from runvisor.actors.python.numeric.handle import When
from runvisor.policies.permissions import MiB
from tests.actors.python.numeric.twins import ALWAYS

LOOP = "def f(n, k=2):\n    'doc'\n    s = 0\n    for i in range(n):\n        s += i % k\n    return s\n"


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(process_engine(), ALWAYS)


def run(accelerator: Accelerator, source: str, namespace: dict[str, Any] | None = None) -> dict[str, Any]:
    namespace = {} if namespace is None else namespace
    exec(accelerator.compile(ast.parse(source), "<task>", namespace), namespace)
    return namespace


def test_a_function_stays_a_function(accelerator: Accelerator) -> None:
    f = run(accelerator, LOOP)["f"]
    assert inspect.isfunction(f)
    assert (f.__name__, f.__doc__, f.__defaults__) == ("f", "doc", (2,))
    assert str(inspect.signature(f)) == "(n, k=2)"
    assert f.__code__.co_varnames == ("n", "k", "s", "i")
    assert f.__code__.co_firstlineno == 1


def test_annotations_and_flags_are_the_sources_own(accelerator: Accelerator) -> None:
    namespace = run(accelerator, "def f(n: int) -> int:\n    for i in range(n):\n        pass\n    return n\n")
    assert namespace["f"].__annotations__ == {"n": int, "return": int}
    code = accelerator.compile(ast.parse(LOOP + "await g()"), "<task>", {}, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert code.co_flags & inspect.CO_COROUTINE


def test_no_name_is_added(accelerator: Accelerator) -> None:
    namespace = run(accelerator, LOOP)
    namespace["f"](10)
    assert set(namespace) == {"f", "__builtins__"}


def test_defaults_and_keywords_work_and_are_accelerated(accelerator: Accelerator) -> None:
    f = run(accelerator, LOOP)["f"]
    assert [f(9), f(k=3, n=9)] == [4, 9]
    assert accelerator.report.accelerated == 2


def test_a_traceback_is_the_one_that_python_gives(accelerator: Accelerator) -> None:
    source = (
        "def g(a, i):\n    return a[i]\ndef f(a):\n    for i in range(9):\n"
        "        a[i] += g(a, i + 1)\n    return a\nf([1, 2])\n"
    )
    linecache.cache["<task>"] = (len(source), None, source.splitlines(keepends=True), "<task>")

    def texts(code: Any) -> list[str]:
        with pytest.raises(IndexError) as caught:
            exec(code, namespace)
        return traceback.format_tb(caught.value.__traceback__.tb_next)  # type: ignore[union-attr]  # there is one

    namespace: dict[str, Any] = {}
    plain = texts(compile(source, "<task>", "exec"))
    namespace = {}
    assert texts(accelerator.compile(ast.parse(source), "<task>", namespace)) == plain
    assert accelerator.report.fallbacks == {"f: an index out of range": 1}


def test_the_tree_is_left_as_it_was(accelerator: Accelerator) -> None:
    tree = ast.parse(LOOP)
    before = ast.dump(tree, include_attributes=True)
    accelerator.compile(tree, "<task>", {})
    assert ast.dump(tree, include_attributes=True) == before


def test_cells_of_a_session_call_functions_of_earlier_cells(accelerator: Accelerator) -> None:
    namespace = run(accelerator, "def g(x):\n    return x * 2\n")
    run(accelerator, "def f(n):\n    t = 0\n    for i in range(n):\n        t += g(i)\n    return t\n", namespace)
    assert namespace["f"](10) == 90
    run(accelerator, "def g(x):\n    return x * 3\n", namespace)
    assert namespace["f"](10) == 135
    assert accelerator.report.compiled == {"f", "g"}
    assert accelerator.report.accelerated == 2


@pytest.mark.parametrize(
    "body",
    [
        "print(i)",
        "yield i",
        "s = {i: 1}",
        "try:\n            s = 1\n        finally:\n            pass",
        "global s\n        s = 1",
    ],
)
def test_what_has_effects_or_is_not_numeric_is_left_alone(accelerator: Accelerator, body: str) -> None:
    namespace = run(accelerator, f"def f(n):\n    for i in range(n):\n        {body}\n")
    plain: dict[str, Any] = {}
    exec(f"def f(n):\n    for i in range(n):\n        {body}\n", plain)
    assert namespace["f"].__code__.co_code == plain["f"].__code__.co_code


def test_without_an_engine_programs_run_as_they_are() -> None:
    accelerator = Accelerator(None)
    assert run(accelerator, LOOP)["f"](9) == 4
    assert accelerator.report.document()["calls_accelerated"] == 0


def test_a_cold_function_is_never_compiled() -> None:
    accelerator = Accelerator(process_engine())
    f = run(accelerator, LOOP)["f"]
    assert [f(3) for _ in range(20)] == [1] * 20
    assert accelerator.report.compiled == set()


def test_a_long_loop_is_compiled_before_its_first_call() -> None:
    accelerator = Accelerator(process_engine())
    assert run(accelerator, LOOP)["f"](2_000_000) == 1_000_000
    assert accelerator.report.document()["calls_accelerated"] == 1


def test_what_adds_up_is_compiled_once_it_has() -> None:
    accelerator = Accelerator(process_engine())
    f = run(accelerator, LOOP)["f"]
    calls = 0
    while not accelerator.report.accelerated:
        assert f(2000) == 1000
        calls += 1
    assert calls > 1


def test_a_recursion_is_taken_over_while_it_runs() -> None:
    accelerator = Accelerator(process_engine())
    namespace = run(accelerator, "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n")
    assert namespace["fib"](27) == 196418
    assert accelerator.report.accelerated > 0


def test_a_function_that_often_falls_back_is_given_up_and_costs_nothing() -> None:
    accelerator = Accelerator(process_engine(), When(ahead_s=0.0))
    source = "def f(n):\n    for i in range(3):\n        n *= n\n    return n\n"
    f = run(accelerator, source)["f"]
    assert {f(10**9) for _ in range(6)} == {10**72}
    plain: dict[str, Any] = {}
    exec(source, plain)
    assert f.__code__.co_code == plain["f"].__code__.co_code
    assert accelerator.report.fallbacks["f: an integer beyond 64 bits"] == 4


def test_a_function_whose_lists_cost_more_to_copy_than_to_use_is_given_back() -> None:
    accelerator = Accelerator(process_engine())
    source = (
        "def find(a, x):\n    low, high = 0, len(a)\n    while low < high:\n        middle = (low + high) // 2\n"
        "        if a[middle] < x:\n            low = middle + 1\n        else:\n            high = middle\n"
        "    return low\n"
    )
    find, numbers = run(accelerator, source)["find"], list(range(100_000))
    while "find: slower than CPython" not in accelerator.report.fallbacks:
        assert [find(numbers, x) for x in (0, 77_777, 100_001)] == [0, 77_777, 100_000]
    assert accelerator.report.accelerated < 10


def test_a_session_cannot_fill_the_memory_with_compiled_functions() -> None:
    accelerator = Accelerator(process_engine(), When(ahead_s=0.0, worth=math.inf, max_modules=2))
    for _ in range(4):
        assert run(accelerator, LOOP)["f"](9) == 4
    assert accelerator.report.accelerated == 2
    assert accelerator.report.fallbacks == {"f: too many compiled functions": 2}


@pytest.mark.parametrize("is_late", [False, True])
def test_lists_beyond_the_engines_memory_are_python_lists(is_late: bool) -> None:
    engine = Engine() if is_late else Engine(memory_bytes=1 * MiB)
    if is_late:
        engine.limit(1 * MiB)
    accelerator = Accelerator(engine, ALWAYS)
    namespace = run(accelerator, "def f(n):\n    a = [0] * n\n    for i in range(n):\n        a[i] = i\n    return a\n")
    assert namespace["f"](1000) == list(range(1000))
    assert namespace["f"](200_000) == list(range(200_000))
    assert accelerator.report.fallbacks == {"f: memory": 1}


@pytest.fixture
def _interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, _stop)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGUSR1, before)


class _Stop(BaseException):
    pass


def _stop(*_: object) -> None:
    raise _Stop


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize(
    "source",
    [
        "def f(a):\n    a[0] = 9\n    while True:\n        a[0] += 1\n",
        "def g(n):\n    return g(n - 1) + g(n - 1) if n else 1\n"
        "def f(a):\n    a[0] = 9\n    for i in range(9):\n        a[0] = g(60)\n",
    ],
)
def test_a_signals_exception_ends_a_call_and_nothing_is_committed(accelerator: Accelerator, source: str) -> None:
    f = run(accelerator, source)["f"]
    a = [1]
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        seen: list[int] = []
        while len(seen) < 20:  # in the one C call that runs the module, and staying there
            frame = sys._current_frames()[main]
            here = frame.f_lasti if frame.f_code.co_name == "_call" else -1
            seen = [*seen, here] if here > 0 and seen in ([], [here] * len(seen)) else []
            never.wait(0.001)
        signal.pthread_kill(main, signal.SIGUSR1)

    never = threading.Event()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(_Stop):
        f(a)
    thread.join()
    engine = process_engine()
    assert engine is not None
    assert a == [1]
    assert not engine.lock.locked()
    assert run(accelerator, LOOP)["f"](9) == 4


def test_threads_get_their_own_answers(accelerator: Accelerator) -> None:
    f = run(accelerator, LOOP)["f"]
    answers: dict[int, list[int]] = {}

    def work(n: int) -> None:
        answers[n] = [f(n) for _ in range(200)]

    threads = [threading.Thread(target=work, args=(n,)) for n in (3, 900, 4001)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: [n // 2] * 200 for n in (3, 900, 4001)}
