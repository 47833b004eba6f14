"""runvisor: the right sandbox at once for each piece of code that an agent writes.

The names below are the public API. They load on first use, so that a sandbox
child can import a leaf of the package without Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runvisor.actors.python.profiles import PythonProfile
    from runvisor.actors.runtime import PoolSize
    from runvisor.actors.sessions import SessionLimits
    from runvisor.actors.settings import RuntimeSettings
    from runvisor.policies import errors
    from runvisor.policies.permissions import Filesystem, Network, Permissions
    from runvisor.policies.recording import Recording, Replay
    from runvisor.policies.result import Artifact, Isolation, Result, Usage
    from runvisor.policies.scheduling.decision import Decision
    from runvisor.policies.task import Task
    from runvisor.policies.trust import Grant, Trust
    from runvisor.supervisor.actor import SupervisorOptions
    from runvisor.supervisor.async_session import AsyncSession
    from runvisor.supervisor.client import Supervisor
    from runvisor.supervisor.execution import Execution, Output
    from runvisor.supervisor.plan.events import PlanEvent
    from runvisor.supervisor.plan.outcome import PlanResult
    from runvisor.supervisor.session import Session
    from runvisor.supervisor.shared import Shared

__all__ = [
    "Artifact",
    "AsyncSession",
    "Decision",
    "Execution",
    "Filesystem",
    "Grant",
    "Isolation",
    "Network",
    "Output",
    "Permissions",
    "PlanEvent",
    "PlanResult",
    "PoolSize",
    "PythonProfile",
    "Recording",
    "Replay",
    "Result",
    "RuntimeSettings",
    "Session",
    "SessionLimits",
    "Shared",
    "Supervisor",
    "SupervisorOptions",
    "Task",
    "Trust",
    "Usage",
    "errors",
]

_HOMES = {
    "RuntimeSettings": "actors.settings",
    "PythonProfile": "actors.python.profiles",
    "Shared": "supervisor.shared",
    "AsyncSession": "supervisor.async_session",
    "SessionLimits": "actors.sessions",
    "Session": "supervisor.session",
    "Execution": "supervisor.execution",
    "Output": "supervisor.execution",
    "PoolSize": "actors.runtime",
    "errors": "policies.errors",
    "Filesystem": "policies.permissions",
    "Network": "policies.permissions",
    "Permissions": "policies.permissions",
    "Recording": "policies.recording",
    "Replay": "policies.recording",
    "Artifact": "policies.result",
    "Isolation": "policies.result",
    "Result": "policies.result",
    "Usage": "policies.result",
    "Decision": "policies.scheduling.decision",
    "Task": "policies.task",
    "Grant": "policies.trust",
    "Trust": "policies.trust",
    "SupervisorOptions": "supervisor.actor",
    "Supervisor": "supervisor.client",
    "PlanEvent": "supervisor.plan.events",
    "PlanResult": "supervisor.plan.outcome",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'runvisor' has no attribute {name!r}")
    module = import_module(f"runvisor.{home}")
    return module if name == "errors" else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
