"""What a trap tells: the function, the frames, and whose fault it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.runtime import PoolSize
from runvisor.actors.wasm.backtraces import frames_of
from runvisor.actors.wasm.executions import Module, ModuleRun, Outcome
from runvisor.actors.wasm.principals import Principals
from runvisor.policies import errors
from runvisor.policies.permissions import MiB, Permissions
from tests.actors.wasm.conftest import Run


def test_a_trap_names_its_function_and_the_frames_above(wat: Run) -> None:
    error = wat('(func $deep unreachable) (func (call $deep)) (func $top (export "main") (call 1))').error
    assert isinstance(error, errors.GuestException)
    assert error.where == "deep"
    assert [frame["function"] for frame in error.details["frames"]] == ["deep", "func[1]", "top"]
    assert all(frame["offset"] > 0 for frame in error.details["frames"])


def test_a_c_program_tells_where_it_divided_by_zero(c: Run) -> None:
    code = """__attribute__((noinline)) int divide(int a, int b) { return a / b; }
int main(int count, char **arguments) { return divide(5, count - 1); }"""
    error = c(code).error
    assert isinstance(error, errors.GuestException)
    assert "divide by zero" in error.what
    assert error.where == "divide"


@pytest.mark.parametrize("limit", [{"timeout_s": 0.05}, {"instructions": 10_000}])
def test_a_limit_tells_where_the_program_was(wat: Run, limit: dict[str, float]) -> None:
    error = wat('(func $spin (loop $l (br $l))) (func (export "main") (call $spin))', **limit).error
    assert isinstance(error, errors.LimitExceeded)
    assert error.where in limit
    assert error.details["frames"][0]["function"] == "spin"


def test_recursion_without_end_has_no_endless_frames(wat: Run) -> None:
    error = wat('(func $r (export "main") (call $r) (call $r))').error
    assert isinstance(error, errors.GuestException)
    assert 1 <= len(error.details["frames"]) <= 32
    assert error.where == "r"


@pytest.mark.parametrize(
    "hostile", ["wasm backtrace:\n" * 50, "wasm backtrace:\n 0: 0x" + "f" * 99 + " - !", "wasm backtrace:\n 0: !\n"]
)
def test_a_hostile_message_gives_few_frames_or_none(hostile: str) -> None:
    assert len(frames_of(hostile)) <= 1


@pytest.fixture
def narrow() -> Iterator[Principals]:
    if not probe_jail("test").available:
        pytest.skip(probe_jail("test").detail)
    principals = Principals(PoolSize(maximum=1))
    principals.start()
    yield principals
    principals.close()


def test_an_engine_without_a_place_is_busy_and_not_the_guests_fault(narrow: Principals) -> None:
    """Two lanes of an engine that has one place: what the queue before it prevents."""
    loop = Module.of('(module (func (export "main") (loop $l (br $l))))', is_text=True)
    quick = Module.of('(module (func (export "main") (result i32) (i32.const 3)))', is_text=True)
    with narrow.engine("one") as link, link.lane(MiB) as first, link.lane(MiB) as second, ThreadPoolExecutor(1) as pool:
        assert ModuleRun(quick, None, Permissions(), lambda: None)(link, second).value == 3

        def run_the_loop() -> Outcome:
            while True:  # the run before may not be tidied up behind yet
                with contextlib.suppress(errors.CapacityError):
                    return ModuleRun(loop, None, Permissions(timeout_s=1.0), lambda: None)(link, first)

        running = pool.submit(run_the_loop)
        busy = None
        while not running.done() and busy is None:
            try:
                ModuleRun(quick, None, Permissions(), lambda: None)(link, second)
            except errors.CapacityError as error:
                busy = error
        assert isinstance(busy, errors.PoolExhausted)
        assert busy.details["retry_after_s"] > 0
        assert isinstance(running.result().error, errors.TimeLimitExceeded)
        while True:  # the place is free when the engine has tidied up behind its answer
            with contextlib.suppress(errors.CapacityError):
                assert ModuleRun(quick, None, Permissions(), lambda: None)(link, second).value == 3
                break


def test_traps_of_one_thread_never_reach_another(wat: Run) -> None:
    def trap(number: int) -> bool:
        error = wat(f'(func $f{number % 7} unreachable) (func (export "main") (call 0))').error
        return error is not None and error.where == f"f{number % 7}"

    def answer(number: int) -> bool:
        return wat('(func (export "main") (param i32) (result i32) (local.get 0))', [number]).value == number

    with ThreadPoolExecutor(8) as pool:
        trapped, answered = pool.map(trap, range(150)), pool.map(answer, range(150))
        assert all(trapped)
        assert all(answered)
