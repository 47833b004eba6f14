"""Fixtures for tests that need Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray

from runvisor.actors.runtime import PoolSize
from runvisor.actors.sessions import SessionLimits
from runvisor.supervisor.actor import SupervisorOptions
from runvisor.supervisor.attach import connect
from runvisor.supervisor.client import Supervisor


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One embedded Ray for the whole test session, or the one that runs already."""
    connect(None)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def supervisor(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """One supervisor for the whole test session; commands and further clients attach to it."""
    audit, policy = (str(tmp_path_factory.mktemp(name)) for name in ("audit", "policy"))
    sizes = {name: PoolSize(minimum=2, maximum=6) for name in ("python", "v8", "wasm", "ebpf")}
    sessions = {"python": SessionLimits(total=4, per_principal=3)}
    options = SupervisorOptions(sizes=sizes, sessions=sessions, audit_folder=audit, policy_folder=policy)
    with Supervisor.start(options=options) as supervisor:
        yield supervisor
