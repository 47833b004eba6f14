"""A child that its owner keeps: cell after cell in one process, as well jailed as any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from runvisor.actors.channel.sealed import SealedInputs, describe
from runvisor.actors.jail.child import READY_TIMEOUT_S
from runvisor.actors.jail.conversation import Bounds, Conversation
from runvisor.actors.jail.custody import Custody
from runvisor.actors.jail.outcome import Around, to_result
from runvisor.actors.runtime import Cell, Watch
from runvisor.actors.witness.counting import Counting
from runvisor.policies.errors import RunvisorError, SpawnFailed
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task, check_code
from runvisor.policies.trust import Grant
from runvisor.policies.values import Packed, pack

REPLY_BYTES: Final = 24 * MiB
"""Of one answer; the pool holds it twice for a moment."""
LIFETIME_S: Final = 24 * 3600.0
"""No session lives longer, whatever it does; also its CPU time, if its grant does not say less."""


def first_frame(task: Task, variant: str, permissions: Permissions, cpu_s: float) -> dict[str, Any]:
    """Return what any guest is told first, its inputs left out.

    Args:
        task: What it is for.
        variant: Which variant of the runtime it is to be.
        permissions: Its grant's.
        cpu_s: CPU time for the whole process, where the grant does not say.
    """
    return {
        "code": task.source,
        "label": task.label,
        "language": task.language,
        "variant": variant,
        "env": dict(permissions.env),
        "cpu_s": permissions.cpu_s or cpu_s,
        "memory_bytes": permissions.memory_bytes,
        "output_bytes": permissions.output_bytes,
    }


def sealed_parts(inputs: Packed, frame: dict[str, Any]) -> list[int]:
    """Return the descriptors of inputs' sealed memory, and tell the guest of them in its frame."""
    memory = inputs.memory if isinstance(inputs, SealedInputs) else ()
    if memory:
        frame["shared"] = describe(memory)
    return [part.fileno() for part in memory]


class JailedSession:
    """A session in a lent child. See `OpenSession`.

    Its memory, scratch and CPU time are bounded for the whole of it, since the
    kernel counts them per process; wall-clock time and output per cell.

    Args:
        custody: Its child is sealed and waits; its memory limit is set.
        give_back: Called once, to end the lease.
        task: The language and the label.
        grant: What it may do.
        counting: Of its child; the lease ends it.
        runtime: The runtime's name.
        variant: The variant's name.

    Raises:
        SpawnFailed: The guest does not open a session; the lease is still the caller's to end.
        WorkerCrashed: The child was dead.
    """

    def __init__(
        self,
        custody: Custody,
        give_back: Callable[[], None],
        task: Task,
        grant: Grant,
        counting: Counting,
        *,
        runtime: str,
        variant: str,
    ) -> None:
        permissions = grant.permissions
        child = custody.child
        self._counting = counting
        self._around = Around.of(child, networked=custody.networked)
        self._language = task.language
        self._grant = replace(grant, permissions=replace(permissions, cpu_s=permissions.cpu_s or LIFETIME_S))
        self._runtime = runtime
        self._variant = variant
        self._child = child
        self._give_back: Callable[[], None] | None = give_back
        self._conversation = Conversation(child, REPLY_BYTES)
        self._ended = ""
        self._cpu_s = 0.0
        frame = {
            **first_frame(task, variant, permissions, LIFETIME_S),
            "mode": "session",
            "inputs": pack(None),
            "code": "",
        }
        frame["env"] = {**custody.environment, **frame["env"]}
        bounds = Bounds(READY_TIMEOUT_S, permissions.output_bytes, REPLY_BYTES)
        opened = self._conversation.exchange("open", frame, bounds, Watch())
        if opened.end != "reply":
            said = opened.stderr.decode(errors="replace").strip()[-500:]
            raise SpawnFailed(f"the guest opened no session ({opened.end})", runtime, said)

    @property
    def pid(self) -> int:
        """See `ProcessSession.pid`."""
        return self._child.pid

    def birth(self) -> str:
        """See `ProcessSession.birth`."""
        return self._child.birth()

    @property
    def ended(self) -> str:
        """See `OpenSession.ended`."""
        return self._ended

    def run(self, cell: Cell, watch: Watch) -> Result:
        """See `OpenSession.run`."""
        check_code(cell.code, self._language)
        grant = self._grant
        if cell.timeout_s is not None and cell.timeout_s < grant.permissions.timeout_s:
            grant = replace(grant, permissions=replace(grant.permissions, timeout_s=cell.timeout_s))
        message: dict[str, Any] = {
            "op": "cell",
            "code": cell.code,
            "inputs": cell.inputs.data,
            "label": cell.label,
        }
        shared = sealed_parts(cell.inputs, message)
        bounds = Bounds(grant.permissions.timeout_s, grant.permissions.output_bytes, REPLY_BYTES)
        self._counting.begin()
        watch.counted(self._counting.now)
        transcript = self._conversation.exchange("cell", message, bounds, watch, shared)
        self._counting.finish(killed=transcript.end != "reply")
        result = to_result(
            transcript,
            grant,
            language=self._language,
            code_bytes=len(cell.code),
            runtime=self._runtime,
            variant=self._variant,
            queue_s=0.0,
            around=self._around,
            cpu_before_s=self._cpu_s,
        )
        self._cpu_s = transcript.usage.cpu_s
        result = self._counting.told(result)
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
