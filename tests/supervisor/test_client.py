"""What a user of the client sees, end to end: real Ray, real pools, real sandboxes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from runvisor.actors.channel.base import Channel, OnEvent
from runvisor.actors.channel.frames import Message
from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.wasm.cpython import execution as cpython
from runvisor.actors.wasm.images.recipes import remedy
from runvisor.actors.wasm.images.store import find_image
from runvisor.policies import errors
from runvisor.policies.audit import verify
from runvisor.policies.permissions import Filesystem, Permissions
from runvisor.policies.result import Result
from runvisor.policies.scheduling.arms import ARMS, Arm
from runvisor.policies.task import Task
from runvisor.policies.trust import Trust
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.execution import Call, Output

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]


def audit_records(supervisor: Supervisor) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for path in Path(supervisor.describe()["audit_folder"]).glob("*.jsonl"):
        lines = path.read_text().splitlines()
        assert verify(lines) is None
        records += map(json.loads, lines)
    return records


def active(supervisor: Supervisor, runtime: str) -> dict[str, Any]:
    pools = supervisor.describe()["pools"]
    return next(pool["active"] for pool in pools if pool["runtime"] == runtime)


@pytest.mark.parametrize(
    ("code", "language"),
    [("sum(range(10))", "python"), ("[1, 2, 3].map(x => x * 15).reduce((a, b) => a + b, -45)", "javascript")],
)
def test_the_language_is_found_and_the_value_returned(supervisor: Supervisor, code: str, language: str) -> None:
    result = supervisor.run(code)
    assert (result.value, result.language) == (45, language)


def test_the_decision_reads_like_a_sentence(supervisor: Supervisor) -> None:
    decision = supervisor.run("import os\n1 + 1", "python").decision
    assert decision is not None
    assert decision.explain().startswith("Chose python/native, the only arm that may run this task")


def test_numeric_code_is_said_to_be_compilable(supervisor: Supervisor) -> None:
    code = "def f(n):\n    s = 0\n    for i in range(n):\n        s += i\n    return s\nf(10)"
    decision = supervisor.run(code, "python").decision
    assert decision is not None
    assert "python/jit compiles: f" in decision.explain()
    assert {"python/native", "python/jit"} <= {candidate.arm for candidate in decision.candidates}


def test_a_record_program_that_the_kernel_cannot_take_runs_as_wasm_and_the_decision_says_why(
    supervisor: Supervisor,
) -> None:
    if probe_ebpf().available is False:
        pytest.skip(probe_ebpf().detail)
    loop = "for (u64 i = 0; i < r->value % 7; i++) s->total = s->total * 3 + i;"
    source = f"struct state {{ u64 total; }};\nint on_record(struct record *r, struct state *s) {{ {loop} return 1; }}"
    records = np.arange(10, dtype="<u8")
    expected = 0
    for step in (step for value in range(10) for step in range(value % 7)):
        expected = (expected * 3 + step) % 2**64
    for _ in range(2):
        result = supervisor.run(source, "c-record", inputs={"records": records}, trust="verified")
        assert result.unwrap() == {"selected": 10, "state": {"total": expected}}
        assert (result.runtime, result.variant) == ("wasm", "record")
        assert result.decision is not None
        assert "ebpf/record (the program has a loop that the compiler could not unroll)" in result.decision.explain()
    asked = [record for record in audit_records(supervisor) if "ebpf/record" in json.dumps(record)]
    assert len(asked) == 1, "the second task went straight to the other engine"


class Refusing:
    """A channel to a pool whose engine says behind a run that it cannot take the program."""

    def __init__(self, channel: Channel) -> None:
        self.executions = 0
        self._channel = channel

    def request(self, message: Message, on_event: OnEvent | None = None, shared: Sequence[int] = ()) -> Message:
        answer = self._channel.request(message, on_event, shared)
        if message["op"] == "execute":
            self.executions += 1
            answer["result"]["error"] = errors.EngineRefused("run it elsewhere too").to_wire()
        return answer

    def close(self) -> None:
        self._channel.close()


def test_only_the_kernels_refusal_has_a_task_run_on_another_arm(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "def f(n):\n    s = 0\n    for i in range(n):\n        s += i\n    return s\nf(11)"
    first = supervisor.run(code, "python")
    assert first.decision is not None
    arms = [candidate.arm for candidate in first.decision.candidates if not candidate.excluded_because]
    assert len(arms) > 1, "there is somewhere to go"
    refusing = []
    for runtime in {arm.partition("/")[0] for arm in arms}:
        link = supervisor._handle._pools.to(runtime)
        refusing.append(Refusing(link.channel))
        monkeypatch.setattr(link, "channel", refusing[-1])
    result = supervisor.run(code, "python")
    assert isinstance(result.error, errors.EngineRefused)
    assert sum(each.executions for each in refusing) == 1


def test_javascript_that_counts_instructions_runs_on_the_arm_that_can(supervisor: Supervisor) -> None:
    if find_image("quickjs") is None:
        pytest.skip(remedy("quickjs"))
    counted = Permissions(instructions=10_000_000)
    result = supervisor.run("let s = 0; for (let i = 0; i < 9; i++) s += i; s", "javascript", permissions=counted)
    assert (result.unwrap(), result.runtime, result.variant) == (36, "wasm", "quickjs")
    assert result.usage.instructions
    with pytest.raises(errors.NoEligibleArm) as caught:
        supervisor.run("await fetch('http://x')", "javascript", permissions=counted)
    assert caught.value.details["excluded"]["wasm/quickjs"] == "it uses fetch, which is not there"


def test_files_go_in_and_come_out(supervisor: Supervisor) -> None:
    result = supervisor.run("open('/out/b', 'w').write(open('/in/a').read() * 2)", "python", files={"a": b"xy"})
    assert result.files == {"b": b"xyxy"}
    assert result.to_document()["files"] == {"b": "eHl4eQ=="}


def test_relative_patterns_are_meant_from_the_callers_folder(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "data" / "n.txt").write_text("20")
    monkeypatch.chdir(tmp_path)
    permissions = Permissions(filesystem=Filesystem(read=("./data/*.txt",), write=("out/*",)))
    code = "with open('out/m.txt', 'w') as f: f.write(str(int(open('data/n.txt').read()) + 1))"
    assert supervisor.run(code, "python", permissions=permissions, trust="verified").ok
    assert (tmp_path / "out" / "m.txt").read_text() == "21"
    with pytest.raises(errors.CapabilityDenied):
        supervisor.run(code, "python", permissions=permissions)


def test_what_is_learned_comes_back_into_decisions(supervisor: Supervisor) -> None:
    for _ in range(400):
        decision = supervisor.run("1 + 1", "python").decision
        assert decision is not None
        if decision.candidates[0].samples > 0:
            break
    assert decision.candidates[0].mean_s is not None
    assert 0 < decision.candidates[0].mean_s < 5
    assert "expected" in decision.explain()


def test_map_keeps_the_order_of_its_inputs(supervisor: Supervisor) -> None:
    results = supervisor.map("inputs ** 2", range(12), language="python", max_parallel=4)
    assert [result.value for result in results] == [n * n for n in range(12)]


ADD = '(module (func (export "main") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))'


def test_map_sends_short_executions_in_batches(supervisor: Supervisor) -> None:
    results = list(supervisor.map(ADD, ([n, 1] for n in range(300)), language="wat", max_parallel=2))
    assert [result.value for result in results] == list(range(1, 301))
    assert results[-1].decision is not None
    batches = [record for record in audit_records(supervisor) if record["action"] == "execute batch"]
    assert len(batches) < 300


def test_an_input_of_a_batch_that_does_not_fit_is_refused_in_its_turn(supervisor: Supervisor) -> None:
    results = supervisor.map(ADD, [[1, 2], ["text", 2]], language="wat")
    assert next(results).value == 3
    with pytest.raises(errors.InvalidTask):
        next(results)


def test_map_of_many_sources(supervisor: Supervisor) -> None:
    results = list(supervisor.map(["1 + 1", "1 / 0", "2 + 2"], language="python"))
    assert [result.value for result in results] == [2, None, 4]
    assert isinstance(results[1].error, errors.GuestException)


def test_map_of_one_source_without_inputs_is_bad_use(supervisor: Supervisor) -> None:
    with pytest.raises(errors.ConfigError):
        list(supervisor.map("1 + 1"))


def test_async_twins(supervisor: Supervisor) -> None:
    async def both() -> tuple[Any, list[Any]]:
        one = await supervisor.arun("20 + 1", "python")
        many = await supervisor.amap("inputs + 1", [1, 2], language="python")
        return one.value, [result.value for result in many]

    assert asyncio.run(both()) == (21, [2, 3])


def test_large_arrays_cross(supervisor: Supervisor) -> None:
    array = np.random.default_rng(1).random(200_000)
    np.testing.assert_array_equal(supervisor.run("inputs * 2", "python", inputs=array).unwrap(), array * 2)


def test_a_permission_that_no_arm_can_enforce_is_refused_with_each_reason(supervisor: Supervisor) -> None:
    with pytest.raises(errors.NoEligibleArm) as caught:
        supervisor.run("1", "python", permissions=Permissions(stack_bytes=1 << 20))
    assert "stack_bytes" in caught.value.details["excluded"]["python/native"]
    assert caught.value.remedy


def test_what_native_python_cannot_bound_runs_in_wasm(supervisor: Supervisor) -> None:
    if (why := cpython.unavailable()) is not None:
        pytest.skip(why)
    result = supervisor.run("import math\nmath.sin(0)", "python", permissions=Permissions(instructions=10**9))
    assert (result.value, result.runtime, result.variant) == (0.0, "wasm", "cpython")
    assert result.usage.instructions
    assert "it cannot enforce instructions" in result.decision.explain()


def test_more_than_the_trust_level_allows_is_refused_or_narrowed(supervisor: Supervisor) -> None:
    greedy = {"network": {"allowedHosts": ["example.com"]}}
    with pytest.raises(errors.CapabilityDenied):
        supervisor.run("1", "python", permissions=greedy)
    result = supervisor.run("1", "python", permissions=greedy, on_excess="narrow")
    assert result.value == 1
    assert "example.com" in result.isolation.narrowed[0]


@pytest.mark.parametrize(
    ("code", "language", "kind"),
    [
        ("1", "klingon", errors.UnknownLanguage),
        ("", "python", errors.InvalidTask),
        (b"\xff\xfe", "python", errors.InvalidTask),
    ],
)
def test_bad_tasks_are_refused_before_anything_runs(
    supervisor: Supervisor, code: str | bytes, language: str, kind: type[errors.ConfigError]
) -> None:
    with pytest.raises(kind):
        supervisor.run(code, language)


def test_inputs_that_cannot_cross_are_named(supervisor: Supervisor) -> None:
    with pytest.raises(errors.InvalidTask, match="inputs"):
        supervisor.run("1", "python", inputs={"f": print})


def test_a_handle_cannot_exceed_its_own_ceiling(supervisor: Supervisor) -> None:
    with Supervisor.start(trust=Trust.UNTRUSTED, principal="guest") as modest:
        with pytest.raises(errors.TrustViolation):
            modest.run("1", "python", trust=Trust.TRUSTED)
        assert modest.run("1", "python").value == 1


def test_every_execution_is_in_the_audit_log(supervisor: Supervisor) -> None:
    supervisor.run("'audited'", "python", label="find-me", trust=Trust.TRUSTED)
    actions = [r["action"] for r in audit_records(supervisor) if r["details"].get("label") == "find-me"]
    assert actions == ["intend", "execute"]


ONLY_V8 = "new Intl.Collator();"
"""What QuickJS does not have, so that the program goes to V8."""


def test_a_killed_pool_is_replaced_and_the_callers_task_still_answers(supervisor: Supervisor) -> None:
    supervisor.run(f"{ONLY_V8} 1", "javascript")
    before = active(supervisor, "v8")
    os.kill(before["pid"], signal.SIGKILL)
    assert supervisor.run(f"{ONLY_V8} 40 + 2", "javascript").value == 42
    assert active(supervisor, "v8")["nonce"] != before["nonce"]


def test_a_task_that_had_started_is_not_run_twice(supervisor: Supervisor) -> None:
    assert supervisor.run(f"{ONLY_V8} 1", "javascript").value == 1
    endless = Task(f"{ONLY_V8} while (true) {{}}", "javascript", permissions=Permissions(timeout_s=20.0))
    starts: list[int] = []

    def kill_its_pool(event: dict[str, Any]) -> None:
        starts.append(active(supervisor, "v8")["pid"])
        os.kill(starts[-1], signal.SIGKILL)

    with pytest.raises(errors.WorkerCrashed) as caught:
        supervisor._handle.run(endless, on_event=kill_its_pool)
    assert caught.value.details["started"] is True
    assert len(starts) == 1
    assert supervisor.run(f"{ONLY_V8} 1", "javascript").value == 1


# Output, calling off, large inputs

ENDLESS = "print('ready', flush=True)\nwhile True: pass"
MINUTE = {"timeout_s": 60}


def test_on_output_is_called_with_what_is_printed(supervisor: Supervisor) -> None:
    seen: list[Output] = []
    result = supervisor.run("import sys\nprint('a')\nprint('b', file=sys.stderr)", "python", on_output=seen.append)
    for stream, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        assert "".join(output.text for output in seen if output.stream == stream) == text != ""


def test_a_listener_that_raises_calls_the_task_off(supervisor: Supervisor) -> None:
    def fail(output: Output) -> None:
        raise OSError("the listener's own")

    with pytest.raises(OSError, match="the listener's own"):
        supervisor.run(ENDLESS, "python", permissions=MINUTE, on_output=fail, label="broken-off")
    assert wait_for_ending(supervisor, "broken-off") == "Cancelled"


def wait_for_ending(supervisor: Supervisor, label: str) -> str:
    """Return what the log says an execution ended with; the log gives no event to wait for."""
    for _ in range(1000):
        for record in audit_records(supervisor):
            if record["action"] == "execute" and record["details"].get("label") == label:
                return str(record["details"]["error"])
        threading.Event().wait(0.02)
    pytest.fail("it never ended")


def test_a_task_may_ask_for_a_profile_and_the_log_says_which(supervisor: Supervisor) -> None:
    loaded = "import sys\n'numpy' in sys.modules"
    bare = supervisor.run(loaded, "python", profile="bare", label="bare one")
    assert bare.unwrap() is False
    assert supervisor.run(loaded, "python").unwrap() is True
    assert list(supervisor.map(loaded, range(2), "python", profile="bare"))[1].unwrap() is False
    records = [record["details"] for record in audit_records(supervisor) if record["action"] == "execute"]
    assert [details["profile"] for details in records if details.get("label") == "bare one"] == ["bare"]
    with pytest.raises(errors.UnknownProfile, match="choose one of bare, science"):
        supervisor.run("1", "python", profile="klingon")


def test_a_stream_yields_output_then_the_result(supervisor: Supervisor) -> None:
    *outputs, result = supervisor.stream("for n in range(3): print(n)\n7", "python")
    assert isinstance(result, Result)
    assert result.value == 7
    assert "".join(output.text for output in outputs if isinstance(output, Output)) == "0\n1\n2\n"


def test_a_stream_that_is_left_early_calls_its_task_off(supervisor: Supervisor) -> None:
    for event in supervisor.stream(ENDLESS, "python", permissions=MINUTE, label="left-early"):
        assert isinstance(event, Output)
        break
    assert wait_for_ending(supervisor, "left-early") == "Cancelled"


def test_a_stream_raises_what_run_would(supervisor: Supervisor) -> None:
    with pytest.raises(errors.UnknownLanguage):
        list(supervisor.stream("1", "klingon"))
    with pytest.raises(errors.CapabilityDenied):
        list(supervisor.stream("1", "python", permissions={"network": {"allowed_hosts": ["example.com"]}}))


def test_an_execution_can_be_waited_for_and_called_off(supervisor: Supervisor) -> None:
    quick = supervisor.submit("1 + 1", "python")
    assert quick.result(30).value == 2
    assert quick.done()
    quick.cancel()  # harmless
    ready = threading.Event()
    endless = supervisor.submit(ENDLESS, "python", permissions=MINUTE, on_output=lambda output: ready.set())
    assert ready.wait(30)
    with pytest.raises(TimeoutError):
        endless.result(0.01)
    endless.cancel()
    result = endless.result(30)
    assert isinstance(result.error, errors.Cancelled)
    assert result.stdout == "ready\n"


def test_what_is_called_off_before_it_began_is_never_sent(supervisor: Supervisor) -> None:
    call = Call()
    call.cancel()
    with pytest.raises(errors.Cancelled):
        supervisor._handle.run(Task("1", "python"), call=call)


def test_the_async_twins_stream_and_call_off(supervisor: Supervisor) -> None:
    async def use() -> tuple[str, Any]:
        text = ""
        async for event in supervisor.astream("print('a'); print('b'); 5", "python"):
            if isinstance(event, Output):
                text += event.text
            else:
                value = event.value
        running = asyncio.create_task(supervisor.arun(ENDLESS, "python", permissions=MINUTE, label="awaited"))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return text, value

    assert asyncio.run(use()) == ("a\nb\n", 5)


def test_closing_a_client_calls_off_what_it_began(supervisor: Supervisor) -> None:
    ready = threading.Event()
    with Supervisor.start(principal="hasty") as hasty:
        execution = hasty.submit(ENDLESS, "python", permissions=MINUTE, on_output=lambda output: ready.set())
        assert ready.wait(30)
    assert isinstance(execution.result(0).error, errors.Cancelled)


def test_a_shared_value_is_an_input_of_many_executions(supervisor: Supervisor) -> None:
    table = np.arange(100_000, dtype="f8").reshape(100, 1000)
    with supervisor.share(table) as shared:
        code = "[float(inputs['table'].sum()), inputs['n'], inputs['table'].flags.writeable]"
        results = list(supervisor.map(code, ({"table": shared, "n": n} for n in range(3)), "python"))
        assert [result.unwrap() for result in results] == [[float(table.sum()), n, False] for n in range(3)]
        with supervisor.session("python") as session:
            assert session.run("inputs.shape[1]", shared).unwrap() == 1000
            assert session.run("float(inputs[0, 5])", shared).unwrap() == 5.0
            with pytest.raises(errors.ConfigError, match="too large to keep"):
                session.checkpoint()
    with pytest.raises(errors.ConfigError, match="closed"):
        supervisor.run("1", "python", inputs=shared)


def test_a_shared_value_reaches_javascript_too(supervisor: Supervisor) -> None:
    with supervisor.share(np.arange(20_000, dtype="i4")) as shared:
        code = "inputs.reduce((a, b) => a + b, 0)"
        assert supervisor.run(code, "javascript", inputs=shared).unwrap() == 199_990_000


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_inputs_keep_their_shape_and_order(supervisor: Supervisor, order: Any) -> None:
    array = np.asarray(np.random.default_rng(2).random((300, 400)), order=order)
    result = supervisor.run(
        "[inputs['a'].shape, inputs['a'].flags.f_contiguous, float(inputs['a'][7, 9]), len(inputs['b'])]",
        "python",
        inputs={"a": array, "b": bytes(200_000)},
    )
    assert result.unwrap() == [[300, 400], order == "F", float(array[7, 9]), 200_000]


@pytest.mark.parametrize(
    "arm", [arm for arm in ARMS if arm.name in ("python/native", "python/jit")], ids=lambda arm: arm.variant
)
def test_a_task_runs_on_no_other_arms_than_those_named(supervisor: Supervisor, arm: Arm) -> None:
    task = Task("def f(n):\n    return sum(i for i in range(n))\nf(10)", "python")
    for _ in range(3):
        result = supervisor._handle.run(task, arms=(arm,))
        assert (result.value, f"{result.runtime}/{result.variant}") == (45, arm.name)


def arms_of(language: str) -> list[Arm]:
    return [arm for arm in ARMS if language in arm.languages]


@pytest.fixture
def two_arms(supervisor: Supervisor) -> Supervisor:
    """A supervisor whose arms for JavaScript have both been tried, and their pools met; what other tests taught it
    (one kills pools of V8) is forgotten."""
    if find_image("quickjs") is None:
        pytest.skip(remedy("quickjs"))
    handle = supervisor._handle
    ray.get(handle.supervisor.forget.remote())
    handle._placement.attach(handle._attach())
    for arm in arms_of("javascript"):
        for _ in range(3):
            assert handle.run(Task("6 * 7", "javascript"), arms=[arm]).value == 42
    return supervisor


def test_a_burst_of_one_handle_spreads_over_the_pools_that_may_run_it(two_arms: Supervisor) -> None:
    begin = threading.Barrier(64, timeout=60)

    def run(_: int) -> Result:
        begin.wait()
        return two_arms.run("6 * 7", "javascript")

    with ThreadPoolExecutor(64) as threads:
        results = list(threads.map(run, range(64)))
    assert {result.value for result in results} == {42}
    chosen = Counter(result.decision.arm for result in results if result.decision)
    assert min(chosen[arm.name] for arm in arms_of("javascript")) >= 4, chosen


def test_a_map_spreads_over_the_pools_from_its_first_inputs_on_and_keeps_their_order(two_arms: Supervisor) -> None:
    results = list(two_arms.map("inputs * 2", range(64), "javascript", max_parallel=32))
    assert [result.value for result in results] == [2 * n for n in range(64)]
    first = Counter(result.decision.arm for result in results[:32] if result.decision)
    assert len(first) == 2, first
