"""What a pool does with a request, whichever channel brought it.

Nothing in a request is believed except the sealed authority: the grant is
computed here again, and a request for more is refused and recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from runvisor.actors.admission import Admission, Admitted, ending
from runvisor.actors.audit_log import AuditLog
from runvisor.actors.backlog import Backlog, expected_s
from runvisor.actors.batch_requests import BatchRequests
from runvisor.actors.cancellation import Cancellations, execution_id
from runvisor.actors.channel.base import Answers
from runvisor.actors.channel.frames import MAX_FRAME_BYTES, Message
from runvisor.actors.channel.load_page import LoadPage
from runvisor.actors.channel.sealed import SealedInputs
from runvisor.actors.observation_requests import ObservationRequests
from runvisor.actors.running import RunningExecutions
from runvisor.actors.runtime import GuardingRuntime, Load, NetworkedRuntime, Runtime, SharedInputsRuntime
from runvisor.actors.session_requests import SessionRequests
from runvisor.actors.sessions import SessionLimits
from runvisor.actors.streaming import Progress
from runvisor.actors.witness.counting import told_uncounted
from runvisor.policies.errors import Cancelled, InvalidTask, ProtocolError, RunvisorError, WorkerCrashed
from runvisor.policies.result import Result
from runvisor.policies.running import Running
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Value, pack

_NOTHING: Final = pack(None)


class PoolService:
    """Checks requests and runs them on one runtime. Called from many threads.

    Args:
        runtime: A started runtime.
        key: What authorities are sealed with.
        audit: Where decisions and denials are recorded.
        allow_untrusted_bpf: The operator lets untrusted programs into the kernel.
        sessions: How many sessions it keeps.
        missing_layers: Layers for want of which untrusted code is refused.
        uncounted: Why the kernel counts nothing here although the operator asked for it; else empty.
    """

    def __init__(
        self,
        runtime: Runtime,
        key: bytes,
        audit: AuditLog,
        *,
        allow_untrusted_bpf: bool = False,
        sessions: SessionLimits | None = None,
        missing_layers: tuple[str, ...] = (),
        uncounted: str = "",
    ) -> None:
        self._runtime = runtime
        self._audit = audit
        self._admission = Admission(
            runtime.name, key, audit, allow_untrusted_bpf=allow_untrusted_bpf, missing_layers=missing_layers
        )
        if isinstance(runtime, NetworkedRuntime):
            runtime.on_connection = self._record_connection
        if isinstance(runtime, GuardingRuntime):
            runtime.on_denial = self._record_denial
        self._running = Cancellations()
        self._uncounted = uncounted
        self._followed = RunningExecutions()
        self._backlog = Backlog(runtime.load)
        self._batches = BatchRequests(
            runtime, self._admission, audit, self._running, self._followed, self._backlog, uncounted
        )
        self._sessions = SessionRequests(
            runtime, self._admission, audit, sessions or SessionLimits(), self._followed, uncounted
        )
        self._observations = ObservationRequests(runtime, self._admission, audit, self._running, self._followed)

    def handle(self, request: Message, answers: Answers, shared: Sequence[int] = ()) -> None:
        """Answer one request: events while the guest runs, then one last message.

        Args:
            request: ``{"op": "execute", "authority", "task", "variant", "on_excess", "execution", "stream",
                "expected_s"}``,
                ``{"op": "cancel", "authority", "execution"}``, ``{"op": "ping"}``, ``{"op": "execute batch"}`` (see
                `BatchRequests`), ``{"op": "observe"}`` (see `ObservationRequests`), or one of `SessionRequests`.
            answers: Sends messages back; used from this thread only.
            shared: Descriptors that came with the request; they stay the caller's.

        Raises:
            OSError: The client is gone.
        """
        progress = Progress(answers, streams=request.get("stream") is True)
        try:
            match request.get("op"):
                case "ping":
                    answer: Message = {"op": "pong"}
                case "cancel":
                    answer = self._cancel(request)
                case "execute":
                    result = self._execute(request, progress, shared)
                    answer = {"op": "result", "result": result.to_wire()}
                case "execute batch":
                    answer = self._batches.handle(request, progress)
                case "observe":
                    answer = self._observations.handle(request, progress)
                case _:
                    answer = self._sessions.handle(request, progress, shared)
        except RunvisorError as error:
            answer = self._refusal(error, progress.has_started)
        except Exception as error:  # a defect of ours must reach the caller as an error, not as silence
            crash = WorkerCrashed(f"the pool failed: {type(error).__name__}: {error}", self._runtime.name)
            answer = self._refusal(crash, progress.has_started)
        progress.finish()
        answers.send({**answer, "load": self._backlog.load().to_wire()})

    def load(self) -> Load:
        """Return how busy the pool is, as every answer says it."""
        return self._backlog.load()

    def show_load(self, page: LoadPage) -> None:
        """Show it on a page as well, whenever an execution comes or goes."""
        self._backlog.show_on(page)

    def running(self) -> list[Running]:
        """Return what runs just now, and which sessions are idle, of all principals."""
        return [*self._followed.now(), *self._sessions.idle()]

    def close(self) -> None:
        """End every session; calling it twice is fine."""
        self._sessions.close()
        self._backlog.close()

    def _record_connection(self, principal: str, record: Mapping[str, Any]) -> None:
        self._audit.append("connection", str(record["step"]), principal, record)

    def _record_denial(self, principal: str, record: Mapping[str, Any]) -> None:
        self._audit.append("denial", str(record["operation"]), principal, record)

    def _refusal(self, error: RunvisorError, started: bool) -> Message:
        if isinstance(error, WorkerCrashed):
            error = WorkerCrashed(error.what, error.where, error.remedy, {**error.details, "started": started})
        return {"op": "error", "error": error.to_wire()}

    def _cancel(self, request: Message) -> Message:
        """Call off an execution of the same principal; any other is as unknown as one that never was."""
        execution = execution_id(request.get("execution"))
        if not execution:
            raise ProtocolError("the request names no execution", "execution")
        return {"op": "cancelled", "found": self._running.cancel(self._admission.principal(request), execution)}

    def _execute(self, request: Message, progress: Progress, shared: Sequence[int]) -> Result:
        if not shared:
            return self._run(request, self._admission.admit(request), progress)
        task = request.get("task")
        data = task.get("inputs") if isinstance(task, dict) else None
        with SealedInputs.received(data, shared) as inputs:
            admitted = self._admission.admit({**request, "task": {**(task or {}), "inputs": _NOTHING}})
            if isinstance(self._runtime, SharedInputsRuntime):
                value: Value = inputs
            else:
                _check_size(inputs, admitted.grant)
                value = inputs.value()
            admitted = replace(admitted, task=replace(admitted.task, inputs=value))
            return self._run(request, admitted, progress)

    def _run(self, request: Message, admitted: Admitted, progress: Progress) -> Result:
        principal = admitted.grant.principal
        subject = admitted.subject()
        with (
            self._running.admit(principal, execution_id(request.get("execution"))) as cancellation,
            self._followed.follow(self._followed.seen(admitted)) as followed,
            self._backlog.expecting(expected_s(request, admitted.grant)) as expectation,
        ):
            if admitted.grant.trust is Trust.TRUSTED:
                self._audit.append("execution", "intend", principal, subject)
            with progress.answers.cancel_when_gone(cancellation):
                try:
                    result = self._runtime.execute(
                        admitted.task,
                        admitted.arm.variant,
                        admitted.grant,
                        followed.following(progress.watch(cancellation)),
                    )
                except Cancelled:
                    self._audit.append("execution", "call off", principal, subject)
                    raise
            expectation.one_ended(result.usage.wall_s)
        result = told_uncounted(result, self._uncounted)
        self._audit.append("execution", "execute", principal, {**subject, **ending(result)})
        return result


def _check_size(inputs: SealedInputs, grant: Grant) -> None:
    """Refuse to decode, in this process, more than its guest could hold, or than a frame could bring."""
    size = sum(part.nbytes for part in inputs.memory)
    limit = max(grant.permissions.memory_bytes, MAX_FRAME_BYTES)
    if size > limit:
        raise InvalidTask(f"the inputs take {size} bytes, more than {limit}", "inputs", "raise memory_bytes")
