"""Calls of components on the wasm runtime."""

from __future__ import annotations

from typing import Any

import pytest

from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from tests.actors.wasm.conftest import Run, run_on


@pytest.fixture(scope="session")
def component(runtime: WasmRuntime) -> Run:
    def run(code: str | bytes, inputs: Any = None, principal: str = "tester", **permissions: Any) -> Any:
        task = Task(code, "component", inputs, Permissions(**permissions))
        return run_on(runtime, task, principal, variant="component")

    return run
