"""What a pool does with a request, whichever channel brought it.

Nothing in a request is believed except the sealed authority: the grant is
computed here again, and a request for more is refused and recorded.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from runvisor.actors.audit_log import AuditLog
from runvisor.actors.channel.frames import Message
from runvisor.actors.runtime import Runtime
from runvisor.policies.authority import Authority
from runvisor.policies.errors import PolicyError, ProtocolError, RunvisorError, WorkerCrashed
from runvisor.policies.result import Result
from runvisor.policies.scheduling.arms import ARMS, Arm, exclusion
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust, resolve_grant

Emit = Callable[[Message], None]
_MAX_KNOWN_TOKENS: Final = 256


class PoolService:
    """Checks requests and runs them on one runtime. Called from many threads.

    Args:
        runtime: A started runtime.
        key: What authorities are sealed with.
        audit: Where decisions and denials are recorded.
        allow_untrusted_bpf: The operator lets untrusted programs into the kernel.
    """

    def __init__(self, runtime: Runtime, key: bytes, audit: AuditLog, *, allow_untrusted_bpf: bool = False) -> None:
        self._runtime = runtime
        self._key = key
        self._audit = audit
        self._allow_untrusted_bpf = allow_untrusted_bpf
        self._known: dict[bytes, Authority] = {}
        self._known_lock = threading.Lock()

    def handle(self, request: Message, emit: Emit) -> None:
        """Answer one request: ``started`` once the guest is about to begin, then one last message.

        Args:
            request: ``{"op": "execute", "authority", "task", "variant", "on_excess"}`` or ``{"op": "ping"}``.
            emit: Sends a message back; called from this thread only.
        """
        if request.get("op") == "ping":
            emit({"op": "pong"})
            return
        started = False

        def on_started() -> None:
            nonlocal started
            started = True
            emit({"op": "started"})

        try:
            result = self._execute(request, on_started)
        except RunvisorError as error:
            emit(self._refusal(error, started))
        except Exception as error:  # a defect of ours must reach the caller as an error, not as silence
            crash = WorkerCrashed(f"the pool failed: {type(error).__name__}: {error}", self._runtime.name)
            emit(self._refusal(crash, started))
        else:
            emit({"op": "result", "result": result.to_wire(), "load": asdict(self._runtime.load())})

    def _refusal(self, error: RunvisorError, started: bool) -> Message:
        if isinstance(error, WorkerCrashed):
            error = WorkerCrashed(error.what, error.where, error.remedy, {**error.details, "started": started})
        return {"op": "error", "error": error.to_wire(), "load": asdict(self._runtime.load())}

    def _execute(self, request: Message, on_started: Callable[[], None]) -> Result:
        principal = "unknown"
        try:
            if request.get("op") != "execute":
                raise ProtocolError(f"unknown request {request.get('op')!r}")
            authority = self._authority(request.get("authority"))
            principal = authority.principal
            task = Task.from_wire(_mapping(request.get("task")))
            grant = resolve_grant(
                task.permissions,
                task.trust,
                principal=authority.principal,
                trust_ceiling=authority.trust,
                permission_ceiling=authority.permissions,
                on_excess="narrow" if request.get("on_excess") == "narrow" else "refuse",
            )
            arm = self._arm(request.get("variant"))
            reason = exclusion(arm, task.language, grant, {}, allow_untrusted_bpf=self._allow_untrusted_bpf)
            if reason is not None:
                raise PolicyError(f"{arm.name} may not run this task: {reason}", self._runtime.name)
        except (PolicyError, ProtocolError) as error:
            self._audit.append("denial", type(error).__name__, principal, {"what": str(error)})
            raise
        subject = _subject(task, arm, grant)
        if grant.trust is Trust.TRUSTED:
            self._audit.append("execution", "intend", principal, subject)
        result = self._runtime.execute(task, arm.variant, grant, on_started)
        self._audit.append("execution", "execute", principal, {**subject, **_ending(result)})
        return result

    def _authority(self, token: object) -> Authority:
        if not isinstance(token, bytes):
            raise ProtocolError("the request bears no authority", "authority")
        now = time.time()
        known = self._known.get(token)
        if known is not None and now < known.expires_at:
            return known
        authority = Authority.unseal(token, self._key, now=now)
        with self._known_lock:
            if len(self._known) >= _MAX_KNOWN_TOKENS:
                self._known.clear()
            self._known[token] = authority
        return authority

    def _arm(self, variant: object) -> Arm:
        for arm in ARMS:
            if arm.runtime == self._runtime.name and arm.variant == variant:
                return arm
        raise ProtocolError(f"{self._runtime.name} has no variant {variant!r}")


def _mapping(data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ProtocolError("the request holds no task")
    return data


def _subject(task: Task, arm: Arm, grant: Grant) -> dict[str, Any]:
    code = task.code.encode() if isinstance(task.code, str) else task.code
    return {
        "code_sha256": hashlib.sha256(code).hexdigest(),
        "language": task.language,
        "label": task.label,
        "arm": arm.name,
        "trust": grant.trust.label,
        "narrowed": list(grant.narrowed),
    }


def _ending(result: Result) -> dict[str, Any]:
    return {"error": type(result.error).__name__ if result.error else None, "wall_s": result.usage.wall_s}
