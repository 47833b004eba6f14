"""A plan inside the supervisor actor: the manager on a thread, its events as a stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

from runvisor.policies.errors import RunvisorError, WorkerCrashed
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.task import Task
from runvisor.policies.trust import Trust
from runvisor.policies.values import Value, pack
from runvisor.supervisor.handle import Handle
from runvisor.supervisor.plan.manager import Manager
from runvisor.supervisor.plan.markdown import parse_plan
from runvisor.supervisor.request import language_of

Message = dict[str, Any]


class HandleExecutor:
    """Runs a plan's subtasks through a handle: one sandbox and one grant each.

    Args:
        handle: Attached on behalf of the plan's owner.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def run(
        self,
        code: str | bytes,
        *,
        language: str,
        inputs: Value,
        permissions: Permissions,
        trust: Trust,
        label: str,
        objective: Objective | None,
        critical: bool,
    ) -> Result:
        """See `runvisor.supervisor.plan.executor.Executor.run`."""
        language, reason = language_of(code, language)
        task = Task(code, language, inputs, permissions, trust, label, objective=objective, critical=critical)
        return self._handle.run(task, language_reason=reason)


async def stream_plan(text: str, supervisor: Any, principal: str, trust: Trust) -> AsyncIterator[Message]:
    """Run a plan; yield ``{"op": "event"}`` messages and last ``{"op": "result"}`` or ``{"op": "error"}``.

    The plan is cancelled when the consumer goes away.

    Args:
        text: The plan as its author wrote it.
        supervisor: The supervisor actor's own handle.
        principal: On whose behalf.
        trust: The principal's trust ceiling.
    """
    loop = asyncio.get_running_loop()
    messages: asyncio.Queue[Message | None] = asyncio.Queue()
    cancel = threading.Event()

    def say(message: Message | None) -> None:
        loop.call_soon_threadsafe(messages.put_nowait, message)

    def work() -> None:
        handle: Handle | None = None
        try:
            handle = Handle(supervisor, principal, trust)
            manager = Manager(
                HandleExecutor(handle),
                trust=trust,
                permissions=handle.permission_ceiling,
                observer=lambda event: say({"op": "event", "event": event.to_wire()}),
            )
            plan = parse_plan(text)
            manager.check(plan)
            handle.start_pools({step.language for step in plan.steps})
            result = manager.run(plan, cancel)
            say({"op": "result", "result": pack(result.to_wire())})
        except RunvisorError as error:
            say({"op": "error", "error": error.to_wire()})
        except Exception as error:  # a defect of ours must reach the owner as an error, not as silence
            crash = WorkerCrashed(f"the manager failed: {type(error).__name__}: {error}")
            say({"op": "error", "error": crash.to_wire()})
        finally:
            if handle is not None:
                handle.close()
            say(None)

    threading.Thread(target=work, name="plan", daemon=True).start()
    try:
        while (message := await messages.get()) is not None:
            yield message
    finally:
        cancel.set()
