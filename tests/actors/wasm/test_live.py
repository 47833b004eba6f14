"""A module that runs for a while: heard while it does, and called off."""

from __future__ import annotations

import threading
import time

import pytest

from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.hearing import Heard as Events
from runvisor.actors.wasm.hearing import ignore_denial
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.actors.wasm.wasi.guard import MAX_DENIALS
from runvisor.policies import errors
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from tests.actors.executing import Heard

pytestmark = pytest.mark.root

WASI = "wasi_snapshot_preview1"
WRITE = f"""(import "{WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "{WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\04\\00\\00\\00") (data (i32.const 16) "line")
  (func $put (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"""
SPIN = "(loop $again (br $again))"
SLEEP = """(i32.store (i32.const 80) (i32.const 1)) (i64.store (i32.const 88) (i64.const 30000000000))
  (drop (call $poll (i32.const 64) (i32.const 200) (i32.const 1) (i32.const 300)))"""


def run(runtime: WasmRuntime, body: str, watch: Watch, **permissions: float) -> Result:
    granted = Permissions(**{"timeout_s": 20.0, **permissions})  # type: ignore[arg-type]
    task = Task(f'(module {WRITE} (func (export "_start") {body}))', "wat", None, granted)
    return runtime.execute(task, "module", Grant("live", Trust.UNTRUSTED, granted), watch)


@pytest.mark.parametrize("wait", [SPIN, SLEEP], ids=["spinning", "sleeping"])
def test_output_is_heard_while_the_guest_runs_and_the_guest_is_called_off(runtime: WasmRuntime, wait: str) -> None:
    heard = Heard(cancel_at="line")
    began = time.monotonic()
    result = run(runtime, f"(call $put) {wait}", heard.watch)
    assert time.monotonic() - began < 10
    assert isinstance(result.error, errors.Cancelled)
    assert (result.stdout, heard.text(1)) == ("line", "line")


def test_a_run_that_prints_nothing_is_called_off_too(runtime: WasmRuntime) -> None:
    heard = Heard()
    watch = Watch(lambda: threading.Timer(0.05, heard.watch.cancellation.cancel).start(),
                  cancellation=heard.watch.cancellation)  # fmt: skip
    began = time.monotonic()
    result = run(runtime, SPIN, watch)
    assert time.monotonic() - began < 10
    assert isinstance(result.error, errors.Cancelled)
    assert run(runtime, "(call $put)", Watch()).stdout == "line"


def test_a_call_off_ends_no_other_run_of_the_same_engine(runtime: WasmRuntime) -> None:
    heard = Heard()
    results: list[Result] = []
    other = threading.Thread(target=lambda: results.append(run(runtime, f"(call $put) {SPIN}", heard.watch)))
    other.start()
    assert heard.printed.wait(10)
    beside = Heard(cancel_at="line")
    assert isinstance(run(runtime, f"(call $put) {SPIN}", beside.watch).error, errors.Cancelled)
    assert other.is_alive()
    heard.watch.cancellation.cancel()
    other.join(10)
    assert isinstance(results[0].error, errors.Cancelled)


def test_a_quick_run_is_heard_once_and_whole(runtime: WasmRuntime) -> None:
    heard = Heard()
    result = run(runtime, "(call $put) (call $put)", heard.watch)
    assert (result.stdout, heard.text(1)) == ("lineline", "lineline")


def test_the_cap_holds_for_what_was_heard_early_too(runtime: WasmRuntime) -> None:
    heard = Heard()
    result = run(runtime, "(loop $again (call $put) (br $again))", heard.watch, output_bytes=100_002)
    assert isinstance(result.error, errors.OutputLimitExceeded)
    assert heard.text(1) == result.stdout == "line" * 25_000 + "li"


@pytest.mark.parametrize(
    "lie",
    [
        {"event": "output", "stream": 3, "data": b""},
        {"event": "output", "stream": 1, "data": "text"},
        {"event": "output", "stream": 1, "data": b"x" * 11},
        {"event": "denied", "operation": "path_open", "path": "x" * 1001, "reason": ""},
        {"event": "denied", "operation": 1, "path": "", "reason": ""},
        {"event": "nonsense"},
    ],
)
def test_an_engine_that_lies_about_its_run_is_not_believed(lie: dict[str, object]) -> None:
    events = Events(10, lambda stream, data: None, ignore_denial, [0, 0])
    with pytest.raises(errors.ProtocolError):
        events.hear(lie)


def test_more_denials_than_a_guard_tells_are_a_lie() -> None:
    events = Events(10, lambda stream, data: None, ignore_denial, [0, 0])
    denial = {"event": "denied", "operation": "path_open", "path": "/x", "reason": "no"}
    for _ in range(MAX_DENIALS):
        events.hear(denial)
    with pytest.raises(errors.ProtocolError):
        events.hear(denial)


def test_what_a_lost_engine_had_passed_on_is_not_passed_on_again() -> None:
    said: list[bytes] = []
    told = [0, 0]
    for data in (b"ab", b"abcd"):
        Events(10, lambda stream, data: said.append(data), ignore_denial, told).hear(
            {"event": "output", "stream": 1, "data": data}
        )
    assert said == [b"ab", b"cd"]
