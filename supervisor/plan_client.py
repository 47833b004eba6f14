"""The client's end of a plan: hand it to the supervisor, follow its events, return its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from runvisor.policies.errors import InvalidPlan, RunvisorError, WorkerCrashed
from runvisor.policies.values import unpack
from runvisor.supervisor.handle import Handle
from runvisor.supervisor.plan.events import PlanEvent
from runvisor.supervisor.plan.markdown import parse_plan
from runvisor.supervisor.plan.outcome import PlanResult
from runvisor.supervisor.plan.run import Observer


def read_plan(plan: str | Path) -> str:
    """Return a plan's text.

    Args:
        plan: A path, or text with at least one line break.

    Raises:
        InvalidPlan: The path cannot be read.
    """
    if isinstance(plan, str) and "\n" in plan:
        return plan
    try:
        return Path(plan).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPlan(f"the plan cannot be read: {error}", str(plan), "give a Markdown file, or its text") from None


def run_plan(handle: Handle, plan: str | Path, observer: Observer | None) -> PlanResult:
    """Run a plan on the supervisor and wait for its end.

    Args:
        handle: On whose behalf.
        plan: See `read_plan`.
        observer: Called with each event as it happens.

    Raises:
        InvalidPlan: It does not parse; found here, before anything is sent.
        RunvisorError: What the manager raised before it ran anything.
        WorkerCrashed: The supervisor died.
    """
    text = read_plan(plan)
    parse_plan(text)
    stream = handle.supervisor.run_plan.options(num_returns="streaming").remote(
        text, handle.principal, int(handle.trust)
    )
    try:
        for reference in stream:
            message: Any = ray.get(reference)
            if message["op"] == "event":
                if observer is not None:
                    observer(PlanEvent.from_wire(message["event"]))
            elif message["op"] == "result":
                return PlanResult.from_wire(unpack(message["result"]))
            else:
                raise RunvisorError.from_wire(message["error"])
    except RayError as error:
        raise WorkerCrashed(f"the supervisor died while it ran the plan: {error}", "supervisor") from None
    raise WorkerCrashed("the supervisor ended the plan without a result", "supervisor")
