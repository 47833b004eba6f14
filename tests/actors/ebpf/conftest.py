"""One started runtime for the tests that need the kernel, and short ways to ask it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

EVENT = np.dtype([("id", "<u4"), ("kind", "<u4"), ("value", "<u8")])


class Asker:
    """Runs programs on one runtime."""

    def __init__(self, runtime: EbpfRuntime) -> None:
        self.runtime = runtime

    def __call__(
        self,
        source: str,
        records: Any = None,
        *,
        state: Any = None,
        trust: Trust = Trust.VERIFIED,
        principal: str = "alice",
        **permissions: Any,
    ) -> Result:
        inputs: dict[str, Any] = {"records": np.zeros(8, EVENT) if records is None else records}
        if state is not None:
            inputs["state"] = state
        grant = Grant(principal, trust, Permissions(**permissions))
        return self.runtime.execute(Task(source, "c-record", inputs), "record", grant, Watch())


@pytest.fixture(scope="session")
def runtime() -> Iterator[EbpfRuntime]:
    """A runtime that loops as this kernel does best."""
    probe = probe_ebpf()
    if not probe.available:
        pytest.skip(f"{probe.detail}; {probe.remedy}")
    runtime = EbpfRuntime(PoolSize(minimum=1, maximum=3))
    try:
        runtime.start()
        yield runtime
    finally:
        runtime.close()


@pytest.fixture(scope="session")
def ask(runtime: EbpfRuntime) -> Asker:
    """Run a program on the shared runtime."""
    return Asker(runtime)


@pytest.fixture(scope="session")
def asker() -> type[Asker]:
    """Make a way to run programs on another runtime."""
    return Asker


@pytest.fixture
def own(runtime: EbpfRuntime, asker: type[Asker]) -> Iterator[tuple[EbpfRuntime, Asker]]:
    """A runtime that a test may break (the shared one has found out that the kernel can)."""
    mine = EbpfRuntime(PoolSize(minimum=1, maximum=2, wait_s=0.3))
    try:
        mine.start()
        yield mine, asker(mine)
    finally:
        mine.close()
