"""What the supervisor has learned outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from runvisor.policies.scheduling.base import Ending, Outcome, Scheduler
from runvisor.policies.scheduling.snapshot import POLICIES, Snapshot
from runvisor.supervisor.actor import SupervisorActor, SupervisorOptions
from runvisor.supervisor.belief_file import BeliefFile
from runvisor.supervisor.learned import Learned

OUTCOMES = [
    Outcome("python/native", "python:xs", Ending.RAN, 0.002 + at * 1e-5, 0.0, 5.0, 1000.0 + at).to_wire()
    for at in range(50)
]


def fresh() -> Scheduler:
    (policy,) = {read.__self__ for read in POLICIES.values()}  # type: ignore[attr-defined]
    made: Scheduler = policy()
    return made


def learned(folder: Path, epoch: int, save_every_s: float = 600.0) -> Learned:
    return Learned(fresh, epoch, BeliefFile.of(folder), save_every_s)


def test_it_is_saved_at_the_end_and_there_at_the_next_start_under_a_newer_epoch(tmp_path: Path) -> None:
    async def first_life() -> dict[str, Any]:
        first = learned(tmp_path, epoch=1)
        published = first.learn("handle", OUTCOMES, now=2000.0)
        await first.close()
        return published

    before = asyncio.run(first_life())
    after = learned(tmp_path, epoch=2).publish()
    assert after["state"] == before["state"] != fresh().to_wire()
    assert Snapshot.from_wire(after).supersedes(Snapshot.from_wire(before))


def test_a_damaged_file_costs_what_was_learned_and_nothing_else(tmp_path: Path) -> None:
    BeliefFile.of(tmp_path).write({"format": 1, "policy": "of another version", "epoch": 1, "version": 1, "state": {}})
    assert learned(tmp_path, epoch=2).publish()["state"] == fresh().to_wire()
    assert len(list(tmp_path.glob("*.refused-*"))) == 1


def test_forgetting_supersedes_what_handles_know_and_clears_the_file(tmp_path: Path) -> None:
    async def life() -> tuple[dict[str, Any], dict[str, Any]]:
        one = learned(tmp_path, epoch=1)
        before = one.learn("handle", OUTCOMES, now=2000.0)
        one.forget()
        await one.close()
        return before, one.publish()

    before, after = asyncio.run(life())
    assert Snapshot.from_wire(after).supersedes(Snapshot.from_wire(before))
    assert learned(tmp_path, epoch=3).publish()["state"] == fresh().to_wire()


def test_a_handle_that_was_sent_one_lately_is_not_sent_another(tmp_path: Path) -> None:
    async def life() -> list[bool]:
        one = Learned(fresh, 1, None, 600.0)
        return [bool(one.learn("handle", OUTCOMES, now)) for now in (2000.0, 2000.5, 2001.5)]

    assert asyncio.run(life()) == [True, False, True]


@pytest.fixture
def actor(local_ray: None, tmp_path: Path) -> Iterator[Any]:
    options = SupervisorOptions(audit_folder=str(tmp_path), policy_folder=str(tmp_path / "policy"), save_every_s=0.05)
    made: Any = ray.remote(SupervisorActor).options(num_cpus=0, max_restarts=-1, max_concurrency=100).remote(options)
    yield made
    ray.kill(made)


def test_a_supervisor_that_is_killed_knows_it_again_when_ray_has_restarted_it(actor: Any, tmp_path: Path) -> None:
    invented = ["no/such-arm", *OUTCOMES[0][1:]]
    before: Any = ray.get(actor.report.remote("handle", [*OUTCOMES, invented]))
    assert list(before["state"]["arms"]) == ["python/native"]
    file = BeliefFile.of(tmp_path / "policy")
    deadline = time.monotonic() + 60
    while not file.path.exists():
        assert time.monotonic() < deadline
        ray.get(actor.describe.remote())  # meanwhile it saves
    pid: Any = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
    os.kill(pid, signal.SIGKILL)
    while True:
        assert time.monotonic() < deadline
        try:
            answer: Any = ray.get(actor.attach.remote("tester", 0), timeout=60)
        except RayActorError:  # it is being restarted
            continue
        after = answer["snapshot"]
        if after["epoch"] != before["epoch"]:
            break
    assert after["state"] == before["state"]
    assert Snapshot.from_wire(after).supersedes(Snapshot.from_wire(before))
