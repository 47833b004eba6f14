"""What a pool does with a request about a session."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from runvisor.actors.admission import Admission, Admitted, ending
from runvisor.actors.audit_log import AuditLog
from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.frames import Message
from runvisor.actors.channel.sealed import SealedInputs
from runvisor.actors.running import Followed, RunningExecutions
from runvisor.actors.runtime import Cell, ProcessSession, Runtime, SessionRuntime
from runvisor.actors.sessions import SessionLimits, Sessions
from runvisor.actors.streaming import Progress
from runvisor.actors.witness.counting import told_uncounted
from runvisor.policies.errors import ConfigError, ProtocolError, SessionLost
from runvisor.policies.running import Running
from runvisor.policies.trust import Trust
from runvisor.policies.values import Packed, is_number

MIN_IDLE_S: Final = 1.0
_MAX_LABEL: Final = 200


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is written of a session's cells."""

    subject: dict[str, Any]
    admitted: Admitted
    idle: Followed
    """What those who look on see of it between two cells."""


class SessionRequests:
    """Opens sessions and runs their cells for whoever owns them. Called from many threads.

    Args:
        runtime: The pool's; one without sessions refuses them.
        admission: Says who asks, and what they may have.
        audit: Where each cell is recorded.
        limits: How many sessions, and for how long.
        followed: Where those who look on see a cell.
        uncounted: See `PoolService`.
    """

    def __init__(
        self,
        runtime: Runtime,
        admission: Admission,
        audit: AuditLog,
        limits: SessionLimits,
        followed: RunningExecutions,
        uncounted: str = "",
    ) -> None:
        self._runtime = runtime
        self._admission = admission
        self._audit = audit
        self._followed = followed
        self._uncounted = uncounted
        self._sessions = Sessions(limits)
        self._opened: dict[str, _Opened] = {}
        self._lock = threading.Lock()

    def handle(self, request: Message, progress: Progress, shared: Sequence[int] = ()) -> Message:
        """Answer one request.

        Args:
            request: ``{"op": "open session", "authority", "task", "variant", "on_excess", "idle_s"}``; then, each with
                ``authority`` and ``session``, ``{"op": "cell", "code", "inputs", "label", "timeout_s", "stream"}``,
                ``{"op": "interrupt"}``, ``{"op": "session process"}`` or ``{"op": "close session"}``.
            progress: Told of a cell's output.
            shared: Descriptors that came with the request; they stay the caller's.

        Raises:
            RunvisorError: See `Sessions`; a request of an unknown kind is a `ProtocolError`.
        """
        match request.get("op"):
            case "open session":
                return self._open(request)
            case "cell":
                return self._run(request, progress, shared)
            case "interrupt":
                return {"op": "interrupted", "found": self._sessions.interrupt(*self._named(request))}
            case "session process":
                return self._process(*self._named(request))
            case "close session":
                self._sessions.close(*self._named(request))
                return {"op": "closed"}
        raise ProtocolError(f"unknown request {str(request.get('op'))[:80]!r}")

    def idle(self) -> list[Running]:
        """Return the sessions that wait for a cell, the oldest first."""
        tokens = self._sessions.idle_tokens()
        with self._lock:
            return [opened.idle.now() for token, opened in self._opened.items() if token in tokens]

    def close(self) -> None:
        """End every session; calling it twice is fine."""
        self._sessions.close_all()

    def _open(self, request: Message) -> Message:
        admitted = self._admission.admit(request)
        runtime = self._runtime
        if not isinstance(runtime, SessionRuntime):
            raise ConfigError(f"{runtime.name} has no sessions", "language", "use python or javascript")
        idle_s = request.get("idle_s")
        if idle_s is not None and (not is_number(idle_s) or idle_s < MIN_IDLE_S):
            raise ProtocolError(f"idle_s is a number of at least {MIN_IDLE_S:g}", "idle_s")
        principal = admitted.grant.principal
        token = self._sessions.open(
            principal,
            lambda: runtime.open_session(admitted.task, admitted.arm.variant, admitted.grant),
            None if idle_s is None else float(idle_s),
        )
        self._audit.append("execution", "open session", principal, self._remember(token, admitted))
        return {"op": "session", "session": token}

    def _process(self, principal: str, token: str) -> Message:
        """Say which process a session is, and seal that it is its owner's."""
        session = self._sessions.session(principal, token)
        if not isinstance(session, ProcessSession):
            raise ConfigError(f"a session of {self._runtime.name} is no process of its own", "session")
        birth = session.birth()
        if not birth:
            raise SessionLost("the session's process has ended", "session", "open a new one")
        return {"op": "process", "pid": session.pid, "ticket": self._admission.ticket(principal, session.pid, birth)}

    def _remember(self, token: str, admitted: Admitted) -> dict[str, Any]:
        subject = {key: value for key, value in admitted.subject().items() if key != "code_sha256"}
        subject["session"] = hashlib.sha256(token.encode()).hexdigest()[:16]  # a name for the log, not the key itself
        with self._lock:
            kept = self._sessions.tokens()
            self._opened = {other: opened for other, opened in self._opened.items() if other in kept}
            self._opened[token] = _Opened(subject, admitted, self._followed.seen(admitted, "idle"))
        return subject

    def _run(self, request: Message, progress: Progress, shared: Sequence[int]) -> Message:
        principal, token = self._named(request)
        with SealedInputs.received(request.get("inputs"), shared) as inputs:
            return self._run_cell(principal, token, _cell(request, inputs), progress)

    def _run_cell(self, principal: str, token: str, cell: Cell, progress: Progress) -> Message:
        opened = self._opened.get(token)
        subject = {} if opened is None else {**opened.subject, "label": cell.label}
        subject["code_sha256"] = hashlib.sha256(cell.code.encode(errors="replace")).hexdigest()
        if opened is not None and opened.admitted.grant.trust is Trust.TRUSTED:
            self._audit.append("execution", "intend", principal, subject)
        with ExitStack() as stack:
            watch = progress.watch(stack.enter_context(Cancellation()))
            stack.enter_context(progress.answers.cancel_when_gone(watch.cancellation))
            if opened is not None and opened.admitted.grant.principal == principal:
                followed = self._followed.follow(self._followed.seen(opened.admitted, "running", cell.label))
                watch = stack.enter_context(followed).following(watch)
            result = self._sessions.run(principal, token, cell, watch)
        result = told_uncounted(result, self._uncounted)
        self._audit.append("execution", "execute", principal, {**subject, **ending(result)})
        return {"op": "result", "result": result.to_wire()}

    def _named(self, request: Message) -> tuple[str, str]:
        principal = self._admission.principal(request)
        token = request.get("session")
        if not isinstance(token, str):
            raise ProtocolError("the request names no session", "session")
        return principal, token


def _cell(request: Message, inputs: Packed) -> Cell:
    code, label, timeout_s = (request.get(name) for name in ("code", "label", "timeout_s"))
    if not isinstance(code, str) or not isinstance(label, str):
        raise ProtocolError("a cell is code, packed inputs and a label", "cell")
    if timeout_s is not None and (not is_number(timeout_s) or timeout_s <= 0):
        raise ProtocolError("timeout_s is a number above 0", "timeout_s")
    return Cell(code, inputs, label[:_MAX_LABEL], None if timeout_s is None else float(timeout_s))
