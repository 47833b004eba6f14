"""What both channels promise, on a real pool of V8 isolates."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from runvisor.actors.channel.base import Channel
from runvisor.actors.channel.ray_call import RayChannel
from runvisor.actors.channel.unix import UnixChannel
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.pool import PoolActor
from runvisor.actors.runtime import PoolSize
from runvisor.policies.audit import verify
from runvisor.policies.authority import Authority
from runvisor.policies.errors import (
    CapabilityDenied,
    GuestException,
    ProtocolError,
    RunvisorError,
    TimeLimitExceeded,
    TrustViolation,
    WorkerCrashed,
)
from runvisor.policies.permissions import Network, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Trust

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
KEY = bytes(range(32))


def sealed(trust: Trust = Trust.VERIFIED, key: bytes = KEY, lasts_s: float = 600.0) -> bytes:
    return Authority("tester", trust, None, time.time() + lasts_s).seal(key)


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
    answer = channel.request(execute(javascript("inputs.x * 2", inputs={"x": 21})), lambda: started.append(True))
    result = Result.from_wire(answer["result"])
    assert (result.value, result.error, started) == (42, None, [True])
    assert set(answer["load"]) == {"idle", "busy", "waiting"}


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


def test_an_array_arrives_as_a_list_in_javascript(channel: Channel) -> None:
    task = javascript("inputs.reduce((a, b) => a + b, 0)", inputs=np.arange(1000))
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


@pytest.mark.parametrize("kind", ["unix", "ray"])
def test_a_pool_that_dies_mid_task_says_that_the_task_had_started(local_ray: None, tmp_path: Path, kind: str) -> None:
    actor = (
        ray.remote(PoolActor)
        .options(num_cpus=0, max_concurrency=8)
        .remote("v8", PoolSize(minimum=1, maximum=2), KEY, str(tmp_path))
    )
    endpoint = ray.get(actor.start.remote())
    channel: Channel = UnixChannel(endpoint["socket"], endpoint["nonce"]) if kind == "unix" else RayChannel(actor)

    def kill_pool() -> None:
        os.kill(endpoint["pid"], signal.SIGKILL)

    with pytest.raises(WorkerCrashed) as caught:
        channel.request(execute(javascript("while (true) {}", permissions=Permissions(timeout_s=30.0))), kill_pool)
    assert caught.value.details["started"] is True
    with pytest.raises(WorkerCrashed) as caught:
        channel.request(execute(javascript("1")))
    assert caught.value.details["started"] is False
    channel.close()
    shutil.rmtree(Path(endpoint["socket"]).parent)  # the killed pool could not
