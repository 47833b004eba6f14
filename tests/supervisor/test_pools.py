"""A pool whose zygote dies is a dead pool: another takes over, and one that dies again and again is given up."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from runvisor.actors.channel.ray_call import RayChannel
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.runtime import PoolSize
from runvisor.actors.settings import RuntimeSettings
from runvisor.policies.errors import RestartIntensityExceeded, WorkerCrashed
from runvisor.policies.scheduling.arms import ARMS
from runvisor.policies.task import Task
from runvisor.policies.trust import Trust
from runvisor.supervisor.actor import SupervisorActor, SupervisorOptions
from runvisor.supervisor.handle import Handle
from runvisor.supervisor.pool_links import PoolLink
from runvisor.supervisor.pools import PoolOptions, SupervisedPool

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]

SIZE = PoolSize(minimum=1, maximum=2)
SETTINGS = RuntimeSettings(python_profile="bare")
ARM = {arm.runtime: [arm] for arm in ARMS if arm.variant in ("native", "isolate")}
ADD = {"python": Task("40 + 2", "python"), "v8": Task("40 + 2", "javascript")}
ENDLESS = {"python": Task("while True: pass", "python"), "v8": Task("while (true) {}", "javascript")}


@pytest.fixture(scope="module")
def handle(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    """A handle to a supervisor of its own: how often its pools may die is not for others to use up."""
    folders = {name: str(tmp_path_factory.mktemp(name)) for name in ("audit_folder", "policy_folder")}
    options = SupervisorOptions(sizes=dict.fromkeys(ADD, SIZE), settings=SETTINGS, **folders)  # type: ignore[arg-type]
    actor: Any = ray.remote(SupervisorActor).options(num_cpus=0, max_concurrency=100).remote(options)
    handle = Handle(actor, "tester", Trust.VERIFIED)
    yield handle
    handle.close()
    ray.get(actor.close.remote())
    ray.kill(actor)


def kill_zygote(actor: Any) -> None:
    """Return when it is dead, and with it its children; the pool may not know it yet."""
    pid: int = ray.get(actor.__ray_call__.remote(lambda pool: pool._runtime.zygote_pid))
    pidfd, ended = os.pidfd_open(pid), select.poll()
    try:
        ended.register(pidfd, select.POLLIN)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert ended.poll(20_000)
    finally:
        os.close(pidfd)


def link(handle: Handle, runtime: str) -> PoolLink:
    return handle._pools.to(runtime)


@pytest.mark.parametrize("runtime", ADD)
def test_the_next_task_after_the_death_of_a_zygote_is_answered(handle: Handle, runtime: str) -> None:
    before = link(handle, runtime)
    kill_zygote(before.endpoint["actor"])
    assert handle.run(ADD[runtime], arms=ARM[runtime]).unwrap() == 42
    with pytest.raises(RayActorError):
        ray.get(before.endpoint["actor"].watch.remote())
    assert handle.run(ADD[runtime], arms=ARM[runtime]).unwrap() == 42
    assert link(handle, runtime).endpoint["nonce"] != before.endpoint["nonce"]


@pytest.mark.parametrize(("runtime", "way"), [("python", "ray"), ("v8", "socket")])
def test_a_task_that_had_started_is_told_so_and_not_run_again(handle: Handle, runtime: str, way: str) -> None:
    starts: list[Any] = []
    if way == "ray":
        pool = link(handle, runtime)
        pool.channel = RayChannel(pool.endpoint["actor"])  # type: ignore[misc]

    def kill_its_zygote(event: Any) -> None:
        starts.append(event)
        kill_zygote(link(handle, runtime).endpoint["actor"])

    with pytest.raises(WorkerCrashed) as caught:
        handle.run(ENDLESS[runtime], arms=ARM[runtime], on_event=kill_its_zygote)
    assert caught.value.details["started"] is True
    assert len(starts) == 1
    assert handle.run(ADD[runtime], arms=ARM[runtime]).unwrap() == 42


@pytest.mark.slow
def test_a_pool_whose_zygotes_keep_dying_is_given_up(local_ray: None, tmp_path: Path) -> None:
    sizes = {"python": PoolSize(minimum=1, maximum=1)}
    options = PoolOptions(os.urandom(32), str(tmp_path), sizes, spares=False, settings=SETTINGS)

    async def life() -> int:
        pool, nonces = SupervisedPool("python", options), set()
        try:
            while True:
                endpoint = await pool.endpoint()
                nonces.add(endpoint["nonce"])
                await asyncio.to_thread(kill_zygote, endpoint["actor"])
                with pytest.raises(RayActorError):
                    await endpoint["actor"].watch.remote()
                await pool.replace(endpoint["nonce"])
        except RestartIntensityExceeded:
            return len(nonces)
        finally:
            await pool.close()

    assert asyncio.run(life()) == 6
