"""A wasm runtime for the whole session, and ways to run one task on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.wasm.compilers import ziglang
from runvisor.actors.wasm.compilers.compilers import TOOLCHAINS
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def runtime() -> Iterator[WasmRuntime]:
    if not probe_jail("test").available:
        pytest.skip(probe_jail("test").detail)
    runtime = WasmRuntime(PoolSize(maximum=8))
    runtime.start()
    yield runtime
    runtime.close()


def run_on(runtime: WasmRuntime, task: Task, principal: str = "tester", variant: str = "module") -> Result:
    started: list[None] = []
    grant = Grant(principal, Trust.UNTRUSTED, task.permissions)
    result = runtime.execute(task, variant, grant, Watch(lambda: started.append(None)))
    assert len(started) <= 1
    return result


@pytest.fixture(scope="session")
def wat(runtime: WasmRuntime) -> Run:
    def run(code: str, inputs: Any = None, principal: str = "tester", **permissions: Any) -> Result:
        task = Task(f"(module {code})", "wat", inputs, Permissions(**permissions))
        return run_on(runtime, task, principal)

    return run


@pytest.fixture(scope="session")
def c(runtime: WasmRuntime) -> Run:
    if ziglang.find() is None:
        pytest.skip(ziglang.REMEDY)

    def run(code: str, inputs: Any = None, **permissions: Any) -> Result:
        return run_on(runtime, Task(code, "c", inputs, Permissions(**permissions)))

    return run


@pytest.fixture(scope="session")
def compiled(runtime: WasmRuntime) -> Run:
    """Run a text of a compiled language; skips where its toolchain is missing."""

    def run(language: str, code: str, inputs: Any = None, **permissions: Any) -> Result:
        (toolchain,) = (toolchain for toolchain in TOOLCHAINS if toolchain.language == language)
        if lack := toolchain.probe():
            pytest.skip(lack.sentence(language))
        return run_on(runtime, Task(code, language, inputs, Permissions(**permissions)))

    return run


@pytest.fixture(scope="session")
def record(runtime: WasmRuntime) -> Run:
    if ziglang.find() is None:
        pytest.skip(ziglang.REMEDY)

    def run(code: str, inputs: Any, **permissions: Any) -> Result:
        return run_on(runtime, Task(code, "c-record", inputs, Permissions(**permissions)), variant="record")

    return run
