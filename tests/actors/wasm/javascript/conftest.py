"""JavaScript on QuickJS, on the wasm runtime of the whole session."""

from __future__ import annotations

from typing import Any

import pytest

from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from tests.actors.wasm.conftest import Run, run_on
from tests.actors.wasm.quickjs_image import require_image


@pytest.fixture(scope="session")
def js(runtime: WasmRuntime) -> Run:
    require_image()

    def run(code: str, inputs: Any = None, principal: str = "tester", **permissions: Any) -> Result:
        task = Task(code, "javascript", inputs, Permissions(**permissions))
        return run_on(runtime, task, principal, "quickjs")

    return run
