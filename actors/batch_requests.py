"""What a pool does with a batch: one program on many inputs, each execution as fresh as any."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from runvisor.actors.admission import Admission, Admitted
from runvisor.actors.audit_log import AuditLog
from runvisor.actors.backlog import Backlog, expected_s
from runvisor.actors.cancellation import Cancellations, execution_id
from runvisor.actors.channel.frames import Message
from runvisor.actors.running import RunningExecutions
from runvisor.actors.runtime import Runtime, Watch
from runvisor.actors.streaming import Progress
from runvisor.actors.witness.counting import told_uncounted
from runvisor.policies.batches import MAX_ANSWER_BYTES, MAX_INPUTS, Answer, Ending
from runvisor.policies.errors import CapacityError, ConfigError, GuestError, LimitExceeded, ProtocolError
from runvisor.policies.result import Result
from runvisor.policies.trust import Trust
from runvisor.policies.values import pack, unpack

_NOTHING: Final = pack(None)


class BatchRequests:
    """Runs batches for whoever may run their program. Called from many threads.

    Args:
        runtime: The pool's.
        admission: Says who asks, and what they may have.
        audit: Where each batch is recorded, with how its executions ended.
        running: Where a batch can be called off.
        followed: Where those who look on see it.
        backlog: Where it counts while it runs.
        uncounted: See `PoolService`.
    """

    def __init__(
        self,
        runtime: Runtime,
        admission: Admission,
        audit: AuditLog,
        running: Cancellations,
        followed: RunningExecutions,
        backlog: Backlog,
        uncounted: str = "",
    ) -> None:
        self._runtime = runtime
        self._admission = admission
        self._audit = audit
        self._running = running
        self._followed = followed
        self._backlog = backlog
        self._uncounted = uncounted

    def handle(self, request: Message, progress: Progress) -> Message:
        """Run a batch, one execution after the other.

        It ends early, with the endings so far, when it is called off or its
        answer grows large; what is left was not begun.

        Args:
            request: As for one execution, but ``inputs`` stands beside ``task``: a list of packed values.
            progress: Told of the start.

        Raises:
            PolicyError: The program asks for more than it may have; nothing ran.
            ProtocolError: The request is malformed; nothing ran.
            WorkerError: Our side failed before the first execution ended.
        """
        inputs = request.get("inputs")
        if not isinstance(inputs, list) or not inputs or len(inputs) > MAX_INPUTS:
            raise ProtocolError(f"a batch is a list of 1 to {MAX_INPUTS} inputs", "inputs")
        task = request.get("task")
        admitted = self._admission.admit({**request, "task": {**(task or {}), "inputs": _NOTHING}})
        principal, subject = admitted.grant.principal, admitted.subject()
        endings: Counter[str] = Counter()
        answer = Answer()
        if admitted.grant.trust is Trust.TRUSTED:
            self._audit.append("execution", "intend batch", principal, {**subject, "executions": len(inputs)})
        try:
            with (
                self._running.admit(principal, execution_id(request.get("execution"))) as cancellation,
                self._followed.follow(self._followed.seen(admitted)) as followed,
                self._backlog.expecting(expected_s(request, admitted.grant), len(inputs)) as expectation,
                progress.answers.cancel_when_gone(cancellation),
            ):
                watch = followed.following(progress.watch(cancellation))
                for packed in inputs:
                    ending = self._run(admitted, packed, watch)
                    answer.add(ending)
                    endings[_name(ending)] += 1
                    expectation.one_ended(ending.usage.wall_s if isinstance(ending, Result) else 0.0)
                    if cancellation.cancelled or answer.nbytes > MAX_ANSWER_BYTES:
                        break
        finally:
            if endings:
                self._audit.append("execution", "execute batch", principal, {**subject, "endings": dict(endings)})
        return {"op": "endings", **answer.to_wire()}

    def _run(self, admitted: Admitted, packed: Any, watch: Watch) -> Ending:
        """Run one; what concerns it alone is its ending, what concerns all of them is raised."""
        if not isinstance(packed, bytes):
            raise ProtocolError("a batch's inputs are packed values", "inputs")
        task = admitted.task.with_inputs(unpack(packed))
        try:
            result = self._runtime.execute(task, admitted.arm.variant, admitted.grant, watch)
        except (ConfigError, CapacityError, GuestError, LimitExceeded) as error:
            return error
        return told_uncounted(result, self._uncounted)


def _name(ending: Ending) -> str:
    error = ending.error if isinstance(ending, Result) else ending
    return "ok" if error is None else type(error).__name__
