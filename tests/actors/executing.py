"""How tests of runtimes run one task, without a supervisor."""

from __future__ import annotations

from typing import Any

from runvisor.actors.runtime import Runtime
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust


def execute(
    runtime: Runtime,
    code: str | bytes,
    language: str,
    variant: str,
    inputs: Any = None,
    *,
    trust: Trust = Trust.UNTRUSTED,
    **permissions: Any,
) -> Result:
    """Run one task under exactly the permissions that it asks for."""
    asked = Permissions(**permissions)
    started: list[None] = []
    task = Task(code, language, inputs, asked, trust)
    result = runtime.execute(task, variant, Grant("tester", trust, asked), lambda: started.append(None))
    assert len(started) <= 1
    return result
