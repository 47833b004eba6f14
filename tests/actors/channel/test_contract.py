"""What both channels promise, on a real pool of V8 isolates."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from runvisor.actors.channel.base import Channel
from runvisor.actors.channel.frames import MAX_FDS, Message
from runvisor.actors.channel.ray_call import RayChannel
from runvisor.actors.channel.sealed import SealedMemory, seal
from runvisor.actors.channel.unix import UnixChannel
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.pool import PoolActor
from runvisor.actors.runtime import Load, PoolSize
from runvisor.policies.audit import verify
from runvisor.policies.authority import Authority
from runvisor.policies.errors import (
    Cancelled,
    CapabilityDenied,
    GuestException,
    GuestInterrupted,
    ProtocolError,
    RunvisorError,
    SessionBusy,
    SessionLost,
    TimeLimitExceeded,
    TrustViolation,
    WorkerCrashed,
)
from runvisor.policies.permissions import Network, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Trust
from runvisor.policies.values import pack

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
KEY = bytes(range(32))


ENDLESS = "while (true) {}"


def sealed(trust: Trust = Trust.VERIFIED, key: bytes = KEY, lasts_s: float = 600.0, principal: str = "tester") -> bytes:
    return Authority(principal, trust, None, time.time() + lasts_s).seal(key)


def execute(task: Task, **changes: Any) -> dict[str, Any]:
    return {"op": "execute", "authority": sealed(), "task": task.to_wire(), "variant": "isolate", **changes}


def javascript(code: str, **options: Any) -> Task:
    return Task(code, "javascript", **options)


@pytest.fixture(scope="module")
def pool(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("audit")
    actor = (
        ray.remote(PoolActor)
        .options(num_cpus=0, max_concurrency=16)
        .remote("v8", PoolSize(minimum=2, maximum=4), KEY, str(folder))
    )
    endpoint = ray.get(actor.start.remote())
    yield {**endpoint, "actor": actor}
    ray.get(actor.close.remote())
    ray.kill(actor)


@pytest.fixture(params=["unix", "ray"])
def channel(request: pytest.FixtureRequest, pool: dict[str, Any]) -> Iterator[Channel]:
    made: Channel = UnixChannel(pool["socket"], pool["nonce"]) if request.param == "unix" else RayChannel(pool["actor"])
    yield made
    made.close()


def error_of(answer: dict[str, Any]) -> RunvisorError:
    assert answer["op"] == "error", answer
    return RunvisorError.from_wire(answer["error"])


def denials(pool: dict[str, Any]) -> list[dict[str, Any]]:
    lines = Path(pool["audit"]).read_text().splitlines()
    assert verify(lines) is None
    return [record for record in map(json.loads, lines) if record["kind"] == "denial"]


def test_a_task_starts_once_and_answers_with_its_result_and_the_load(channel: Channel) -> None:
    started: list[bool] = []
    answer = channel.request(
        execute(javascript("inputs.x * 2", inputs={"x": 21})), lambda event: started.append(event["op"] == "started")
    )
    result = Result.from_wire(answer["result"])
    assert (result.value, result.error, started) == (42, None, [True])
    assert set(answer["load"]) == {"idle", "busy", "waiting", "backlog_s", "turnaround_s"}


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "ping"},
        {"op": "cancel", "authority": sealed(), "execution": "none"},
        {"op": "execute", "authority": b"forged"},
        {"op": "execute batch", "authority": sealed(), "inputs": []},
        {"op": "open session", "authority": sealed()},
        {"op": "close session", "authority": sealed(), "session": "none"},
        {"op": "observe", "authority": sealed()},
        {"op": "unheard of"},
    ],
    ids=lambda request: request["op"],
)
def test_every_answer_says_how_busy_the_pool_is(channel: Channel, request_: dict[str, Any]) -> None:
    assert Load.from_wire(channel.request(request_).get("load")) is not None


def test_the_guests_own_error_is_part_of_its_result(channel: Channel) -> None:
    result = Result.from_wire(channel.request(execute(javascript("nope()")))["result"])
    assert isinstance(result.error, GuestException)


def test_a_limit_is_part_of_the_result_and_the_next_call_works(channel: Channel) -> None:
    endless = execute(javascript("while (true) {}", permissions=Permissions(timeout_s=0.2)))
    assert isinstance(Result.from_wire(channel.request(endless)["result"]).error, TimeLimitExceeded)
    assert Result.from_wire(channel.request(execute(javascript("1")))["result"]).value == 1


def test_payloads_above_100_kilobytes_travel_both_ways(channel: Channel) -> None:
    text = "x" * 300_000
    result = Result.from_wire(channel.request(execute(javascript("inputs + 'y'", inputs=text)))["result"])
    assert result.value == text + "y"


def test_an_array_arrives_as_numbers_in_javascript(channel: Channel) -> None:
    task = javascript("inputs.reduce((a, b) => a + b, 0)", inputs=np.arange(1000, dtype="i4"))
    assert Result.from_wire(channel.request(execute(task))["result"]).value == 499_500


def test_a_frame_that_claims_more_trust_than_its_authority_is_refused_and_recorded(
    channel: Channel, pool: dict[str, Any]
) -> None:
    before = len(denials(pool))
    forged = execute(javascript("1", trust=Trust.TRUSTED), authority=sealed(Trust.UNTRUSTED))
    assert isinstance(error_of(channel.request(forged)), TrustViolation)
    assert [record["action"] for record in denials(pool)[before:]] == ["TrustViolation"]


@pytest.mark.parametrize(
    "token",
    [sealed(key=bytes(32)), sealed(lasts_s=-1.0), sealed()[:-1] + b"\xff", b"", b"x" * 40],
    ids=["other key", "expired", "changed", "empty", "noise"],
)
def test_a_forged_authority_is_refused_and_recorded(channel: Channel, pool: dict[str, Any], token: bytes) -> None:
    before = len(denials(pool))
    assert isinstance(error_of(channel.request(execute(javascript("1"), authority=token))), TrustViolation)
    assert len(denials(pool)) == before + 1


def test_a_request_without_authority_is_refused(channel: Channel) -> None:
    assert isinstance(error_of(channel.request(execute(javascript("1"), authority=None))), ProtocolError)


def test_a_wider_permission_is_refused_though_the_client_let_it_pass(channel: Channel) -> None:
    greedy = javascript("1", permissions=Permissions(network=Network(("example.com",))))
    assert isinstance(error_of(channel.request(execute(greedy))), CapabilityDenied)


@pytest.mark.parametrize("request_", [{}, {"op": "nonsense"}, {"op": "execute", "authority": sealed(), "task": 3}])
def test_a_malformed_request_is_a_protocol_error(channel: Channel, request_: dict[str, Any]) -> None:
    assert isinstance(error_of(channel.request(request_)), ProtocolError)
    assert Result.from_wire(channel.request(execute(javascript("1")))["result"]).value == 1


def test_a_variant_that_does_not_exist_is_a_protocol_error(channel: Channel) -> None:
    assert isinstance(error_of(channel.request(execute(javascript("1"), variant="other"))), ProtocolError)


def cancel(execution: str, principal: str = "tester") -> dict[str, Any]:
    return {"op": "cancel", "execution": execution, "authority": sealed(principal=principal)}


def endless(execution: str, code: str = ENDLESS) -> dict[str, Any]:
    return execute(javascript(code, permissions=Permissions(timeout_s=60.0)), execution=execution, stream=True)


def text_of(events: list[Message], stream: int) -> str:
    return "".join(event["data"] for event in events if event["op"] == "output" and event["stream"] == stream)


def test_output_comes_as_it_is_printed_and_the_whole_of_it_with_the_result(channel: Channel) -> None:
    events: list[Message] = []
    code = "for (let n = 0; n < 3; n++) console.log(n); console.error('odd'); 7"
    result = Result.from_wire(channel.request(execute(javascript(code), stream=True), events.append)["result"])
    assert [event["op"] for event in events[:2]] == ["started", "output"]
    assert (text_of(events, 1), text_of(events, 2)) == (result.stdout, result.stderr) == ("0\n1\n2\n", "odd\n")


def test_output_is_seen_while_the_guest_still_runs_and_kept_when_it_is_cancelled(channel: Channel) -> None:
    def call_off(event: Message) -> None:
        if event["op"] == "output":
            assert channel.request(cancel("printing"))["found"] is True

    result = Result.from_wire(
        channel.request(endless("printing", "console.log('first'); " + ENDLESS), call_off)["result"]
    )
    assert isinstance(result.error, Cancelled)
    assert result.stdout == "first\n"
    assert result.usage.wall_s < 30


def test_without_stream_there_is_no_output_event(channel: Channel) -> None:
    events: list[Message] = []
    channel.request(execute(javascript("console.log(1)")), events.append)
    assert [event["op"] for event in events] == ["started"]


def test_only_the_same_principal_can_cancel(channel: Channel) -> None:
    def call_off(event: Message) -> None:
        if event["op"] == "started":
            assert channel.request(cancel("mine", principal="eve"))["found"] is False
            assert channel.request(cancel("mine"))["found"] is True

    result = Result.from_wire(channel.request(endless("mine"), call_off)["result"])
    assert isinstance(result.error, Cancelled)


def test_a_cancellation_that_overtakes_its_task_still_counts(channel: Channel) -> None:
    assert channel.request(cancel("early", principal="eve"))["found"] is False
    assert channel.request(cancel("early"))["found"] is False
    assert isinstance(error_of(channel.request(endless("early"))), Cancelled)


@pytest.mark.parametrize("name", ["", 7, "x" * 65, None], ids=["empty", "number", "long", "none"])
def test_a_cancellation_needs_a_name(channel: Channel, name: object) -> None:
    assert isinstance(error_of(channel.request({**cancel("x"), "execution": name})), ProtocolError)


def test_a_cancellation_needs_an_authority(channel: Channel) -> None:
    assert isinstance(error_of(channel.request({**cancel("x"), "authority": sealed(key=bytes(32))})), TrustViolation)


def test_a_name_in_use_is_refused_and_the_first_goes_on(channel: Channel) -> None:
    def again(event: Message) -> None:
        if event["op"] == "started":
            assert isinstance(error_of(channel.request(endless("twin"))), ProtocolError)
            channel.request(cancel("twin"))

    assert isinstance(Result.from_wire(channel.request(endless("twin"), again)["result"]).error, Cancelled)


def test_a_caller_that_breaks_off_leaves_nothing_running(channel: Channel, pool: dict[str, Any]) -> None:
    class Enough(Exception):
        pass

    def leave(event: Message) -> None:
        raise Enough

    before = len(executions(pool))
    with pytest.raises(Enough):
        channel.request(endless("left"), leave)
    ended = wait_for(lambda: executions(pool)[before:])  # recorded when it has ended, long before its deadline
    assert ended[0]["details"]["error"] == "Cancelled"


def executions(pool: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        record
        for record in map(json.loads, Path(pool["audit"]).read_text().splitlines())
        if record["action"] == "execute"
    ]


def wait_for(condition: Any, timeout_s: float = 20.0) -> Any:
    """The log gives no event to wait for: look at it until it says so."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)
    return found


# Sessions


def open_session(channel: Channel, principal: str = "tester", **changes: Any) -> str:
    task = javascript("-", permissions=Permissions(timeout_s=60.0))
    request = {**execute(task), "op": "open session", "authority": sealed(principal=principal), "idle_s": 60.0}
    answer = channel.request({**request, **changes})
    assert answer["op"] == "session", answer
    token = answer["session"]
    assert isinstance(token, str)
    return token


def about(op: str, token: str, principal: str = "tester", **fields: Any) -> dict[str, Any]:
    return {"op": op, "session": token, "authority": sealed(principal=principal), **fields}


def cell(token: str, code: str, inputs: Any = None, principal: str = "tester", **fields: Any) -> dict[str, Any]:
    named = {"code": code, "inputs": pack(inputs), "label": "", **fields}
    return about("cell", token, principal, **named)


def test_a_session_keeps_its_state_streams_its_output_and_is_gone_when_closed(channel: Channel) -> None:
    token = open_session(channel)
    channel.request(cell(token, "let n = inputs", 20))
    events: list[Message] = []
    answer = channel.request(cell(token, "console.log('hi'); n + 1", stream=True), events.append)
    assert (Result.from_wire(answer["result"]).value, text_of(events, 1)) == (21, "hi\n")
    assert channel.request(about("close session", token))["op"] == "closed"
    assert isinstance(error_of(channel.request(cell(token, "n"))), SessionLost)


@pytest.mark.parametrize("op", ["cell", "interrupt", "close session"])
def test_another_principals_session_is_as_unknown_as_none(channel: Channel, op: str) -> None:
    token = open_session(channel)
    fields = {"code": "1", "inputs": pack(None), "label": ""}
    stolen, never = (error_of(channel.request(about(op, name, "eve", **fields))) for name in (token, "never"))
    assert isinstance(stolen, SessionLost)
    assert stolen.args == never.args
    assert Result.from_wire(channel.request(cell(token, "1"))["result"]).value == 1
    channel.request(about("close session", token))


def test_an_interrupt_comes_on_a_connection_of_its_own(channel: Channel) -> None:
    token = open_session(channel)

    def interrupt(event: Message) -> None:
        assert isinstance(error_of(channel.request(cell(token, "1"))), SessionBusy)
        assert channel.request(about("interrupt", token))["found"] is True

    endless_cell = cell(token, "console.log('go'); " + ENDLESS, stream=True)
    assert isinstance(Result.from_wire(channel.request(endless_cell, interrupt)["result"]).error, GuestInterrupted)
    assert Result.from_wire(channel.request(cell(token, "1"))["result"]).value == 1
    channel.request(about("close session", token))


@pytest.mark.parametrize(
    "change",
    [
        {"code": 7}, {"inputs": "x"}, {"label": None}, {"timeout_s": "soon"}, {"timeout_s": -1}, {"session": None},
        {"authority": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_cell_is_a_protocol_error_and_the_session_lives(channel: Channel, change: dict[str, Any]) -> None:
    token = open_session(channel)
    assert isinstance(error_of(channel.request({**cell(token, "1"), **change})), ProtocolError)
    assert Result.from_wire(channel.request(cell(token, "1"))["result"]).value == 1
    channel.request(about("close session", token))


@pytest.mark.parametrize("idle_s", [0, -1, "x", float("nan")])
def test_a_senseless_idle_time_is_refused(channel: Channel, idle_s: object) -> None:
    request = {**execute(javascript("-")), "op": "open session", "idle_s": idle_s}
    assert isinstance(error_of(channel.request(request)), ProtocolError)


def test_a_session_claims_no_more_than_its_authority(channel: Channel) -> None:
    forged = {**execute(javascript("-", trust=Trust.TRUSTED)), "op": "open session"}
    assert isinstance(error_of(channel.request({**forged, "authority": sealed(Trust.UNTRUSTED)})), TrustViolation)


# Shared memory


def shared_request(inputs: Any, code: str) -> tuple[dict[str, Any], list[SealedMemory]]:
    buffers: list[Any] = []
    request = execute(javascript(code))
    request["task"]["inputs"] = pack(inputs, buffers)
    return request, seal(buffers)


def test_large_inputs_come_beside_their_request(channel: Channel) -> None:
    request, memory = shared_request({"xs": np.arange(50_000, dtype="f8"), "k": 2}, "inputs.xs[49999] * inputs.k")
    answer = channel.request(request, None, [part.fileno() for part in memory])
    assert Result.from_wire(answer["result"]).value == 99_998


def test_inputs_without_their_memory_are_a_protocol_error(channel: Channel) -> None:
    request, _ = shared_request(np.arange(50_000), "1")
    assert isinstance(error_of(channel.request(request)), ProtocolError)


def test_memory_that_a_client_could_still_change_is_refused(pool: dict[str, Any]) -> None:
    channel = UnixChannel(pool["socket"], pool["nonce"])
    request, memory = shared_request(np.arange(50_000), "1")
    fd = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.truncate(fd, memory[0].nbytes)
    assert isinstance(error_of(channel.request(request, None, [fd])), ProtocolError)
    os.close(fd)
    channel.close()


def test_descriptors_that_nobody_asked_for_are_closed(pool: dict[str, Any]) -> None:
    def held() -> int:
        return len(list(Path(f"/proc/{pool['pid']}/fd").iterdir()))

    channel = UnixChannel(pool["socket"], pool["nonce"])
    request, memory = shared_request(np.arange(50_000), "1")
    fds = [memory[0].fileno()] * MAX_FDS
    for message in (request, {"op": "ping"}, {"op": "nonsense"}, cell("never", "1")):
        channel.request(message, None, fds)
    before = held()
    rounds = 10
    for _ in range(rounds):
        for message in ({"op": "ping"}, {"op": "nonsense"}, cell("never", "1")):
            channel.request(message, None, fds)
    assert held() < before + rounds * MAX_FDS  # the pool makes children meanwhile, which have a few
    channel.close()


@pytest.mark.parametrize("kind", ["unix", "ray"])
def test_a_pool_that_dies_mid_task_says_that_the_task_had_started(local_ray: None, tmp_path: Path, kind: str) -> None:
    actor = (
        ray.remote(PoolActor)
        .options(num_cpus=0, max_concurrency=8)
        .remote("v8", PoolSize(minimum=1, maximum=2), KEY, str(tmp_path))
    )
    endpoint = ray.get(actor.start.remote())
    channel: Channel = UnixChannel(endpoint["socket"], endpoint["nonce"]) if kind == "unix" else RayChannel(actor)

    def kill_pool(event: Message) -> None:
        os.kill(endpoint["pid"], signal.SIGKILL)

    with pytest.raises(WorkerCrashed) as caught:
        channel.request(execute(javascript("while (true) {}", permissions=Permissions(timeout_s=30.0))), kill_pool)
    assert caught.value.details["started"] is True
    with pytest.raises(WorkerCrashed) as caught:
        channel.request(execute(javascript("1")))
    assert caught.value.details["started"] is False
    channel.close()
    shutil.rmtree(Path(endpoint["socket"]).parent)  # the killed pool could not
