"""What hostile modules, and engines that they took over, cannot do."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runvisor.actors.channel.frames import Message
from runvisor.actors.runtime import PoolSize
from runvisor.actors.wasm import executions
from runvisor.actors.wasm.agreement import WINDOW_BYTES
from runvisor.actors.wasm.executions import Module, ModuleRun, on_engine
from runvisor.actors.wasm.lanes import Lane
from runvisor.actors.wasm.links import EngineLink, _make_window
from runvisor.actors.wasm.principals import Principals
from runvisor.actors.wasm.replies import guest_error
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies import errors
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from tests.actors.wasm.conftest import Run, run_on
from tests.stopping import stop

pytestmark = pytest.mark.root

WASI = "wasi_snapshot_preview1"
ONE = '(func (export "run") (result i32) (i32.const 1))'
SPIN = '(func (export "run") (loop $again (br $again)))'


@pytest.fixture(scope="module")
def engines(runtime: WasmRuntime) -> Principals:
    return runtime._engines


def engine_pid(engines: Principals, principal: str) -> int:
    with engines.engine(principal) as link:
        return link.child.pid


def wait_until_spinning(engines: Principals, principal: str, runs: int) -> None:
    """Wait until the principal's engine has so many runs and burns CPU time in them."""
    deadline = time.monotonic() + 10
    with engines.engine(principal) as link:
        while link._in_flight < runs:
            assert time.monotonic() < deadline
        before = link.child.usage().cpu_s
        while link.child.usage().cpu_s < before + 0.03:
            assert time.monotonic() < deadline


def in_threads(count: int, call: Callable[[], Result]) -> tuple[list[threading.Thread], list[Result]]:
    results: list[Result] = []
    threads = [threading.Thread(target=lambda: results.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


@pytest.mark.parametrize(
    "body",
    [
        "(loop $l (drop (memory.grow (i32.const 1))) (br $l))",
        "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l))",
        "(loop $l (call $random (i32.const 0) (i32.const 65536)) drop (br $l))",
        "(loop $l (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)) drop (br $l))",
        "(i64.store (i32.const 24) (i64.const -1)) "
        "(call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)) drop",
        "(loop $l (call $yield) drop (br $l))",
    ],
    ids=["grow", "fill", "random", "poll", "sleep", "yield"],
)
def test_nothing_outlasts_the_deadline(wat: Run, body: str) -> None:
    code = f"""(import "{WASI}" "random_get" (func $random (param i32 i32) (result i32)))
      (import "{WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
      (import "{WASI}" "sched_yield" (func $yield (result i32)))
      (memory (export "memory") 1)
      (func (export "run") {body})"""
    result = wat(code, timeout_s=0.15, memory_bytes=8 * MiB)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert result.usage.wall_s < 10


def test_randomness_for_a_whole_memory_ends_at_the_deadline(wat: Run) -> None:
    code = f"""(import "{WASI}" "random_get" (func $random (param i32 i32) (result i32)))
      (memory (export "memory") 16384)
      (func (export "run") (result i32) (call $random (i32.const 0) (i32.const 0x40000000)))"""
    result = wat(code, timeout_s=0.05, memory_bytes=1 << 30)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert result.usage.cpu_s is not None
    assert result.usage.cpu_s < 1.0


@pytest.mark.parametrize(
    "call",
    [
        "(call $write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 0))",
        "(call $write (i32.const 1) (i32.const 0) (i32.const 0x10000000) (i32.const 0))",
        "(call $write (i32.const 1) (i32.const 65532) (i32.const 1) (i32.const 0))",
        "(call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const -1))",
    ],
)
def test_addresses_outside_the_memory_are_a_fault_for_the_guest_alone(wat: Run, call: str) -> None:
    code = f"""(import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (import "{WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "\\f0\\ff\\00\\00\\ff\\ff\\ff\\ff")
      (func (export "run") (result i32) {call})"""
    assert wat(code).unwrap() == 21


def test_without_a_memory_wasi_calls_fail_and_exit_still_works(wat: Run) -> None:
    code = f"""(import "{WASI}" "random_get" (func $random (param i32 i32) (result i32)))
      (import "{WASI}" "proc_exit" (func $exit (param i32)))
      (func (export "run") (result i32) (if (i32.ne (call $random (i32.const 0) (i32.const 1)) (i32.const 21))
        (then unreachable)) (call $exit (i32.const 0)) (i32.const 1))"""
    result = wat(code)
    assert (result.ok, result.value) == (True, None)


@pytest.mark.parametrize("fd", [0, 1, 2, 3, 4, 5, 6, 7, 100])
def test_no_descriptor_beyond_the_streams_exists(wat: Run, fd: int) -> None:
    code = f"""(import "{WASI}" "fd_fdstat_get" (func $stat (param i32 i32) (result i32)))
      (import "{WASI}" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
      (import "{WASI}" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "/etc/passwd")
      (func (export "run") (result i32 i32 i32)
        (call $stat (i32.const {fd}) (i32.const 64)) (call $prestat (i32.const {fd}) (i32.const 64))
        (call $open (i32.const {fd}) (i32.const 0) (i32.const 0) (i32.const 11) (i32.const 0)
          (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 64)))"""
    assert wat(code).unwrap() == ([0, 8, 54] if fd < 3 else [8, 8, 8])


def test_principals_do_not_share_an_engine(engines: Principals, wat: Run) -> None:
    assert wat(ONE, principal="alice").unwrap() == wat(ONE, principal="bob").unwrap() == 1
    assert engine_pid(engines, "alice") != engine_pid(engines, "bob")
    assert engine_pid(engines, "alice") == engine_pid(engines, "alice")
    assert wat(ONE, principal="carol").usage.start_kind == "cold"


def test_an_engine_that_died_between_runs_is_replaced_unseen(engines: Principals, wat: Run) -> None:
    for _ in range(3):
        assert wat(ONE, principal="idle").unwrap() == 1
        with engines.engine("idle") as link:
            pid = link.child.pid
            os.kill(pid, signal.SIGKILL)
            link.child.exit()
    assert wat(ONE, principal="idle").unwrap() == 1
    assert engine_pid(engines, "idle") != pid


def test_an_engine_that_died_is_replaced_for_a_run_that_needs_more_memory_too(engines: Principals, wat: Run) -> None:
    assert wat(ONE, principal="more").unwrap() == 1
    with engines.engine("more") as link:
        os.kill(link.child.pid, signal.SIGKILL)
        link.child.exit()
        link.child.close()  # as its zygote does when it finds it dead: the cgroup is gone
    assert wat(ONE, principal="more", memory_bytes=700 * MiB).unwrap() == 1


def test_the_only_run_of_an_engine_that_dies_is_to_blame(runtime: WasmRuntime, engines: Principals, wat: Run) -> None:
    assert wat(ONE, principal="crash").ok
    pid = engine_pid(engines, "crash")
    threads, results = in_threads(1, lambda: wat(SPIN, principal="crash", timeout_s=20.0))
    wait_until_spinning(engines, "crash", 1)
    os.kill(pid, signal.SIGKILL)
    threads[0].join(15)
    assert isinstance(results[0].error, errors.GuestCrashed)
    assert "SIGKILL" in results[0].error.what
    assert wat(ONE, principal="crash").ok


def test_of_several_runs_in_an_engine_that_dies_the_innocent_run_again_alone(
    runtime: WasmRuntime, engines: Principals, wat: Run
) -> None:
    """Nothing kills the engine again, so each is innocent and ends by its own deadline."""
    assert wat(ONE, principal="crowd").ok
    pid = engine_pid(engines, "crowd")
    threads, results = in_threads(2, lambda: wat(SPIN, principal="crowd", timeout_s=0.6))
    wait_until_spinning(engines, "crowd", 2)
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(15)
    assert [type(result.error) for result in results] == [errors.TimeLimitExceeded] * 2
    assert [result.isolation.shared_with for result in results] == [(), ()]


def test_a_module_that_takes_too_long_to_compile_costs_only_itself(
    runtime: WasmRuntime, engines: Principals, wat: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine that it took hostage (here: stopped) is replaced, and who else ran there runs again."""
    assert wat(ONE, principal="slow").ok
    pid = engine_pid(engines, "slow")
    threads, results = in_threads(1, lambda: wat(SPIN, principal="slow", timeout_s=1.0))
    wait_until_spinning(engines, "slow", 1)
    stop(pid)
    monkeypatch.setattr(executions, "COMPILE_TIMEOUT_S", 0.2)
    error = wat('(func (export "run") (result i64) (i64.const 5))', principal="slow").error
    monkeypatch.undo()
    assert isinstance(error, errors.TimeLimitExceeded)
    assert error.where == "compile"
    threads[0].join(20)
    assert isinstance(results[0].error, errors.TimeLimitExceeded)
    assert results[0].error.where == "timeout_s"
    assert results[0].isolation.shared_with  # it was known to be innocent, and needed no engine of its own
    assert engine_pid(engines, "slow") != pid


def test_an_oversized_module_is_refused(runtime: WasmRuntime) -> None:
    task = Task(b"\0asm\1\0\0\0" + b"\0" * (15 * MiB), "wasm")
    assert run_on(runtime, task).error is not None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60), st.sampled_from([b"", b"\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00", b"\x05\x03\x01\x00\x01"])
)
def test_wild_bytes_are_a_syntax_error_and_harm_no_engine(
    runtime: WasmRuntime, engines: Principals, tail: bytes, sections: bytes
) -> None:
    pid = engine_pid(engines, "fuzz")
    try:
        result = run_on(runtime, Task(b"\0asm\1\0\0\0" + sections + tail, "wasm"), "fuzz")
    except errors.InvalidTask:  # it is a module, and exports nothing to call
        pass
    else:
        assert isinstance(result.error, errors.GuestSyntaxError)
    assert engine_pid(engines, "fuzz") == pid


def test_the_shared_memory_of_records_cannot_be_shrunk_under_the_host() -> None:
    fd = _make_window()
    try:
        for size in (0, WINDOW_BYTES - 1, WINDOW_BYTES + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
    finally:
        os.close(fd)


def test_a_module_with_too_many_exports_is_refused(wat: Run) -> None:
    many = "".join(f'(export "e{number}" (func 0))' for number in range(10_001))
    error = wat(f"(func) {many}").error
    assert isinstance(error, errors.GuestSyntaxError)
    assert error.where == "exports"


def test_an_engine_that_never_answers_is_ended_after_the_grace(
    runtime: WasmRuntime, engines: Principals, wat: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executions, "GRACE_S", 0.2)
    assert wat(ONE, principal="frozen").ok
    pid = engine_pid(engines, "frozen")
    stop(pid)
    result = wat(ONE, principal="frozen", timeout_s=0.2)
    assert isinstance(result.error, errors.TimeLimitExceeded)
    assert wat(ONE, principal="frozen").unwrap() == 1
    assert engine_pid(engines, "frozen") != pid


class Impostor:
    """An engine link whose lane is answered by the test instead of by an engine."""

    def __init__(self, answer: Callable[[Message], Message]) -> None:
        import runvisor.actors.wasm.wire as wire

        ours, theirs = socket.socketpair()
        self.peer = wire.Wire(theirs)
        self._answer = answer
        self.lane = Lane(self, ours, os.memfd_create("none"))  # type: ignore[arg-type]  # stands in for EngineLink
        self.modules: dict[Any, Any] = {}
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while (message := self.peer.receive()) is not None:
            self.peer.send({"id": message["id"], **self._answer(message)})

    def note(self, key: Any, module: Any) -> None:
        self.modules[key] = module

    def condemn(self) -> None:
        raise AssertionError

    def is_calm(self) -> bool:
        return True

    def call_off(self, lane: int, request: int) -> None:
        raise AssertionError

    def close(self) -> None:
        self.lane.close()
        self.thread.join(5)
        self.peer.close()


MODULE: Message = {
    "functions": {"run": [[], ["i32"]]},
    "other_functions": [],
    "uses_wasi": False,
    "minimum_bytes": 0,
}


@pytest.mark.parametrize(
    "lie",
    [
        {"module": {}},
        {"module": {**MODULE, "functions": {"run": [["v128"], []]}}},
        {"module": {**MODULE, "functions": {7: [[], []]}}},
        {"module": {**MODULE, "functions": 3}},
        {"error": {"type": "WorkerCrashed", "args": ["retry me", "", "", {}]}},
        {"error": {"type": "PolicyError", "args": ["", "", "", {}]}},
        {"error": {"type": "EngineRefused", "args": ["run me elsewhere too", "", "", {}]}},
        {"error": "none"},
        {"results": b"\0" * 15},
        {"results": "text"},
        {"results": b"\0" * 16, "cpu_s": "much"},
        {"results": b"\0" * 16, "cpu_s": 0.1, "memory_bytes": "all"},
        {"unknown": True},
        {},
    ],
)
def test_an_engine_that_lies_is_not_believed(lie: Message) -> None:
    def answer(request: Message) -> Message:
        if request["op"] == "compile" and not {"module", "error"} & lie.keys():
            return {"module": MODULE}
        return lie

    impostor = Impostor(answer)
    try:
        run = ModuleRun(Module.of(b"x", is_text=False), None, Permissions(), lambda: None)
        with pytest.raises(errors.ProtocolError):
            run(impostor, impostor.lane)  # type: ignore[arg-type]
    finally:
        impostor.close()


def test_what_an_engine_says_of_its_guest_is_cut_to_size() -> None:
    long = "x" * 1_000_000
    error = guest_error({"type": "GuestException", "args": [long, long, long, {"a": long, "b": [long], "c": 3}]})
    assert isinstance(error, errors.GuestException)
    assert len(str(error)) < 300_000
    assert all(isinstance(item, str | int) for item in error.details.values())


@pytest.fixture
def two_engines() -> Iterator[Principals]:
    principals = Principals(PoolSize(maximum=2, wait_s=0.3))
    principals.start()
    yield principals
    principals.close()


def test_the_engine_that_was_idle_longest_makes_room(two_engines: Principals) -> None:
    def link(principal: str) -> EngineLink:
        with two_engines.engine(principal) as link:
            return link

    first, second = link("a"), link("b")
    assert link("a") is first
    assert link("c") not in (first, second)
    assert link("a") is first
    assert link("b") is not second
    with two_engines.engine("x"), two_engines.engine("y"), pytest.raises(errors.PoolExhausted):
        link("z")


def test_a_killed_zygote_is_our_failure_not_the_guests(two_engines: Principals) -> None:
    def work(link: EngineLink, lane: Lane) -> Any:
        process = two_engines._zygote._process
        assert process is not None
        process.kill()
        assert select.select([link.child.pidfd], [], [], 20)[0]  # the engine dies with its zygote, a moment later
        return ModuleRun(Module.of(b"(module)", is_text=True), None, Permissions(), lambda: None)(link, lane)

    with pytest.raises(errors.WorkerError):
        on_engine(two_engines, "a", 1 * MiB, work)
