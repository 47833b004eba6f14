"""What a pool does with a request to observe a process."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any

from runvisor.actors.admission import Admission
from runvisor.actors.audit_log import AuditLog
from runvisor.actors.cancellation import Cancellations, execution_id
from runvisor.actors.channel.frames import Message
from runvisor.actors.running import RunningExecutions
from runvisor.actors.runtime import ObservingRuntime, Runtime
from runvisor.actors.streaming import Progress
from runvisor.policies.errors import ConfigError, GuestSyntaxError
from runvisor.policies.event_hooks import read_hook
from runvisor.policies.observations import ObservationRequest


class ObservationRequests:
    """Observes processes for whoever may see them. Called from many threads.

    Args:
        runtime: The pool's; one that observes nothing refuses.
        admission: Says who asks, and what they may have.
        audit: Where each observation is recorded, before it begins and when it has ended.
        running: Where one can be called off.
        followed: Where those who look on see it.
    """

    def __init__(
        self,
        runtime: Runtime,
        admission: Admission,
        audit: AuditLog,
        running: Cancellations,
        followed: RunningExecutions,
    ) -> None:
        self._runtime = runtime
        self._admission = admission
        self._audit = audit
        self._running = running
        self._followed = followed

    def handle(self, request: Message, progress: Progress) -> Message:
        """Answer one request: it began, and at its end the table.

        It ends early, with the table so far, when it is called off, and without
        one when its client goes away.

        Args:
            request: ``{"op": "observe", "authority", "observation", "execution", "ticket"}``.
            progress: Told of the start.

        Raises:
            PolicyError: The principal may not see that process.
            ConfigError: There is no such process, or this pool observes nothing.
            ProtocolError: The request is malformed.
        """
        admitted = self._admission.admit_observation(request)
        principal, asked = admitted.principal, admitted.request
        runtime = self._runtime
        if not isinstance(runtime, ObservingRuntime):
            raise ConfigError(f"{runtime.name} observes nothing", "observe", "ask the ebpf pool")
        subject = _subject(asked, admitted.target)
        self._audit.append("execution", "intend to observe", principal, subject)
        with (
            self._running.admit(principal, execution_id(request.get("execution"))) as cancellation,
            progress.answers.cancel_when_gone(cancellation),
            self._followed.follow(self._followed.seen_observing(runtime.name, admitted)) as followed,
        ):
            watch = followed.following(progress.watch(cancellation))
            table = runtime.observe(asked, watch, principal, admitted.birth)
        ending: dict[str, Any] = {
            "ended": table.ended,
            "observed_s": table.duration_s,
            "rows": len(table),
            "lost": table.lost,
        }
        if asked.program is not None:
            ending["event"] = table.what  # with the path of a library that was asked for by its name
        self._audit.append("execution", "observe", principal, {**subject, **ending})
        return {"op": "observed", "table": table.to_wire()}


def _subject(asked: ObservationRequest, target: str) -> Mapping[str, Any]:
    """Return what the audit log says of an observation."""
    subject = {**asked.to_wire(), "target": target}
    if asked.program is not None:
        del subject["program"]
        subject["program_sha256"] = hashlib.sha256(asked.program.encode(errors="replace")).hexdigest()
        with contextlib.suppress(GuestSyntaxError):  # it is refused later
            subject["event"] = read_hook(asked.program).title
    return subject
