"""A child that its owner keeps: cell after cell in one process, as well jailed as any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from runvisor.actors.jail.child import READY_TIMEOUT_S, Child
from runvisor.actors.jail.conversation import Bounds, Conversation
from runvisor.actors.jail.outcome import to_result
from runvisor.actors.runtime import Cell, Watch
from runvisor.policies.errors import RunvisorError, SpawnFailed
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant
from runvisor.policies.values import pack

REPLY_BYTES: Final = 64 * MiB
LIFETIME_S: Final = 24 * 3600.0
"""No session lives longer, whatever it does; also its CPU time, if its grant does not say less."""


def first_frame(task: Task, permissions: Permissions, cpu_s: float) -> dict[str, Any]:
    """Return what any guest is told first, its inputs left out.

    Args:
        task: What it is for.
        permissions: Its grant's.
        cpu_s: CPU time for the whole process, where the grant does not say.
    """
    return {
        "code": task.source,
        "label": task.label,
        "language": task.language,
        "env": dict(permissions.env),
        "cpu_s": permissions.cpu_s or cpu_s,
        "memory_bytes": permissions.memory_bytes,
        "output_bytes": permissions.output_bytes,
    }


class JailedSession:
    """A session in a lent child. See `OpenSession`.

    Its memory, scratch and CPU time are bounded for the whole of it, since the
    kernel counts them per process; wall-clock time and output per cell.

    Args:
        child: Sealed and waiting; its memory limit is set.
        give_back: Called once, to end the lease.
        task: The language and the label.
        grant: What it may do.
        runtime: The runtime's name.
        variant: The variant's name.

    Raises:
        SpawnFailed: The guest does not open a session; the lease is still the caller's to end.
        WorkerCrashed: The child was dead.
    """

    def __init__(
        self, child: Child, give_back: Callable[[], None], task: Task, grant: Grant, *, runtime: str, variant: str
    ) -> None:
        permissions = grant.permissions
        self._task = task
        self._grant = replace(grant, permissions=replace(permissions, cpu_s=permissions.cpu_s or LIFETIME_S))
        self._names = {"runtime": runtime, "variant": variant}
        self._child = child
        self._give_back: Callable[[], None] | None = give_back
        self._conversation = Conversation(child, REPLY_BYTES)
        self._ended = ""
        self._cpu_s = 0.0
        frame = {**first_frame(task, permissions, LIFETIME_S), "mode": "session", "inputs": pack(None), "code": ""}
        bounds = Bounds(READY_TIMEOUT_S, permissions.output_bytes, REPLY_BYTES)
        opened = self._conversation.exchange("open", frame, bounds, Watch())
        if opened.end != "reply":
            said = opened.stderr.decode(errors="replace").strip()[-500:]
            raise SpawnFailed(f"the guest opened no session ({opened.end})", runtime, said)

    @property
    def ended(self) -> str:
        """See `OpenSession.ended`."""
        return self._ended

    def run(self, cell: Cell, watch: Watch) -> Result:
        """See `OpenSession.run`."""
        task = replace(self._task, code=cell.code, label=cell.label)
        permissions = self._grant.permissions
        if cell.timeout_s is not None:
            permissions = replace(permissions, timeout_s=min(cell.timeout_s, permissions.timeout_s))
        message = {"op": "cell", "code": task.source, "inputs": cell.inputs, "label": cell.label}
        bounds = Bounds(permissions.timeout_s, permissions.output_bytes, REPLY_BYTES)
        transcript = self._conversation.exchange("cell", message, bounds, watch)
        grant = replace(self._grant, permissions=permissions)
        result = to_result(transcript, task, grant, queue_s=0.0, **self._names)
        total_s, before_s = transcript.usage.cpu_s, self._cpu_s
        self._cpu_s = total_s
        result = replace(result, usage=replace(result.usage, cpu_s=max(0.0, total_s - before_s)))
        if transcript.end == "reply" or result.error is None:
            return result
        self._ended = f"{type(result.error).__name__}: {result.error.what}"
        return replace(result, error=_ending(result.error))

    def kill(self) -> None:
        """See `OpenSession.kill`."""
        self._child.kill()

    def close(self) -> None:
        """See `OpenSession.close`."""
        give_back, self._give_back = self._give_back, None
        self._ended = self._ended or "it was closed"
        if give_back is not None:
            give_back()


def _ending(error: RunvisorError) -> RunvisorError:
    """Return the error with the word that the session ended with it."""
    details = {**error.details, "session": "ended"}
    return type(error)(f"{error.what}; the session has ended with it", error.where, error.remedy, details)
