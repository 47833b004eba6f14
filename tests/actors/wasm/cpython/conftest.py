"""Python tasks on the wasm runtime; skipped where the image is not built."""

from __future__ import annotations

from typing import Any

import pytest

from runvisor.actors.wasm.cpython import execution
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from tests.actors.wasm.conftest import Run, run_on


@pytest.fixture(scope="session")
def python(runtime: WasmRuntime) -> Run:
    if (why := execution.unavailable()) is not None:
        pytest.skip(why)

    def run(code: str, inputs: Any = None, label: str = "", **permissions: Any) -> Any:
        task = Task(code, "python", inputs, Permissions(**permissions), label=label)
        return run_on(runtime, task, variant="cpython")

    return run
