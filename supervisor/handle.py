"""The handle: decides by itself, talks to pools directly, reports what happened.

No central hop lies on the way of a task. The handle holds a read-only copy of
what the supervisor has learned and a sealed authority; the pool believes only
the latter.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import ray

from runvisor.actors.channel.base import Channel, OnEvent
from runvisor.actors.channel.frames import Message
from runvisor.policies.batches import Ending, endings_of
from runvisor.policies.errors import EngineRefused, ProtocolError, RunvisorError, SpawnFailed, WorkerCrashed
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result, Usage
from runvisor.policies.scheduling.arms import ARMS, Arm
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.task import Task
from runvisor.policies.trust import OnExcess, Trust
from runvisor.policies.values import Value, pack
from runvisor.supervisor.execution import Call
from runvisor.supervisor.placement import Attached, Ended, Placed, Placement
from runvisor.supervisor.pool_links import PoolLinks, ask, unrefused
from runvisor.supervisor.reporter import Reporter
from runvisor.supervisor.shared import sealed_inputs

_RENEW_BEFORE_S: Final = 60.0
_LEARNED: Final = 8
"""Executions of a batch that are learned from, about: they are all of one family and one moment."""
_REFUSES_FIRST: Final = "ebpf"
"""The one runtime that refuses what it cannot take before anything of it runs. Of another's word the task would
run a second time, after whatever its first run did."""


class Handle:
    """One principal's way to run tasks. Safe to use from many threads.

    Args:
        supervisor: The supervisor actor.
        principal: On whose behalf.
        trust: The trust ceiling to ask for.
        permissions: A permission ceiling to ask for.
        objective: What the choice of an arm makes small, where a task does not say; None is the policy's own.

    Raises:
        TrustViolation: The operator allows less trust.
    """

    def __init__(
        self,
        supervisor: Any,
        principal: str,
        trust: Trust,
        permissions: Permissions | None = None,
        objective: Objective | None = None,
    ) -> None:
        self.supervisor = supervisor
        self.principal = principal
        self.trust = trust
        self._asked = permissions.to_dict() if permissions is not None else None
        self._pools = PoolLinks(supervisor)
        self._name = secrets.token_hex(8)
        self._placement = Placement(principal, trust, self._pools, self._attach(), objective)
        self._reporter = Reporter(self._report)

    @property
    def permission_ceiling(self) -> Permissions | None:
        """The principal's own ceiling; None leaves only the trust levels'."""
        return self._placement.attached.permissions

    def run(
        self,
        task: Task,
        *,
        on_excess: OnExcess = "refuse",
        language_reason: str = "",
        call: Call | None = None,
        on_event: OnEvent | None = None,
        arms: Sequence[Arm] = ARMS,
        placed: Placed | None = None,
    ) -> Result:
        """Run one task on the arm that looks best, and learn from it.

        A program that an engine cannot take goes on to the next arm, before anything of it ran.

        Args:
            task: What to run.
            on_excess: What to do about permissions beyond a ceiling.
            language_reason: How the language was found out, for the explanation.
            call: Its name, and how the caller means to call it off.
            on_event: Called with what the pool says before its last answer: ``started``, when the guest
                is about to begin (from then on it is never run again), and ``output`` as it is printed.
            arms: Those to choose from; one alone, to measure it.
            placed: Where it is to run, if that has just been decided; see `place_many`.

        Raises:
            PolicyError: It asks for more than it may have, or no arm may run it.
            ConfigError: It cannot be run as given.
            CapacityError: No instance came free in time.
            WorkerError: Our side failed; a task that had not started was tried again once.
        """
        call = call or Call()
        asked: set[str] = set()
        result: Result | None = None
        with sealed_inputs(task.inputs) as inputs:
            wire = task.envelope(inputs.data)
            shared = [part.fileno() for part in inputs.memory]
            input_bytes = len(inputs.data) + sum(part.nbytes for part in inputs.memory)
            if placed is not None:
                placed = self._placement.sized(placed, task, input_bytes)
            while True:
                self.renew()
                placed = placed or self._placement.place(
                    task, on_excess, language_reason=language_reason, arms=arms, input_bytes=input_bytes
                )
                if result is not None and placed.decision.arm in asked:
                    return result  # what refused it is all there is
                request = {
                    "op": "execute",
                    "authority": self.authority,
                    "variant": placed.variant,
                    "on_excess": on_excess,
                    "execution": call.id,
                    "stream": on_event is not None,
                    "expected_s": placed.expected_s,
                    "task": wire,
                }
                answer = self._send(request, placed, call, on_event, shared)
                if answer.get("op") != "result":
                    raise ProtocolError(f"the pool answered with {answer.get('op')!r}", placed.runtime)
                result = Result.from_wire(answer["result"], placed.decision)
                self._learn(placed, result.usage, result.error)
                if not isinstance(result.error, EngineRefused) or placed.runtime != _REFUSES_FIRST:
                    return result
                asked.add(placed.decision.arm)
                self._placement.note_refusal(task, placed, result.error)
                placed = None

    def place_many(
        self, tasks: Sequence[Task], *, on_excess: OnExcess = "refuse", language_reason: str = ""
    ) -> list[Placed | None]:
        """Choose arms for tasks that are about to be run side by side; see `Placement.place_many`."""
        self.renew()
        return self._placement.place_many(tasks, on_excess, language_reason=language_reason)

    def run_batch(
        self, task: Task, inputs: Sequence[Value], *, on_excess: OnExcess = "refuse", language_reason: str = ""
    ) -> list[Ending]:
        """Run one program on several inputs in as few requests as that takes; each execution is as fresh as any.

        Args:
            task: The program; its own inputs are not used.
            inputs: One value per execution, at most `MAX_INPUTS`.
            on_excess: As for `run`.
            language_reason: As for `run`.

        Returns:
            For each input what `run` would return, or an error that it would raise of that input alone.

        Raises:
            RunvisorError: As for `run`, for the program or the pool as a whole.
        """
        packed = [_packed(value) for value in inputs]
        endings: list[Ending] = []
        while len(endings) < len(packed):
            rest = packed[len(endings) :]
            self.renew()
            placed = self._placement.place(
                task, on_excess, language_reason=language_reason, input_bytes=sum(map(len, rest)) // len(rest)
            )
            call = Call()
            request = {
                "op": "execute batch",
                "authority": self.authority,
                "variant": placed.variant,
                "on_excess": on_excess,
                "execution": call.id,
                "expected_s": placed.expected_s,
                "task": task.envelope(b""),
                "inputs": rest,
            }
            answer = self._send(request, placed, call)
            names = {"runtime": placed.runtime, "variant": placed.variant, "language": task.language}
            found = endings_of(answer, **names, most=len(rest)) if answer.get("op") == "endings" else []
            if not found:
                raise ProtocolError(f"the pool answered a batch with {answer.get('op')!r}", placed.runtime)
            for ending in found[:: 1 + len(found) // _LEARNED]:
                if isinstance(ending, Result):
                    self._learn(placed, ending.usage, ending.error)
            endings += [item.with_decision(placed.decision) if isinstance(item, Result) else item for item in found]
        return endings

    def ask_pool(
        self, task: Task, request: Message, names: Collection[str], *, on_excess: OnExcess
    ) -> tuple[Channel, Message]:
        """Send a request to the pool that suits a task, and return the way to that pool with its answer.

        Args:
            task: What it is about.
            request: The rest of the request.
            names: The arms that understand it, as ``runtime/variant``.
            on_excess: What to do about permissions beyond a ceiling.

        Raises:
            NoEligibleArm: None of them may run the task.
            RunvisorError: What the pool answered with, or that it died.
        """
        arms = [arm for arm in ARMS if arm.name in names]
        self.renew()
        placed = self._placement.place(task, on_excess, arms=arms)
        request = {**request, "authority": self.authority, "task": task.to_wire(), "variant": placed.variant}
        link = placed.link
        try:
            answer = link.request(request)
        except WorkerCrashed:
            link = self._pools.successor(placed.runtime, link)
            answer = link.request(request)
        return link, unrefused(answer)

    def ask_runtime(
        self, runtime: str, request: Message, *, call: Call | None = None, on_event: OnEvent | None = None
    ) -> Message:
        """Send a request that is no task to a runtime's pool; once more, to the spare, if it had not started.

        Args:
            runtime: The runtime's name.
            request: The rest of the request.
            call: Its name, and how the caller means to call it off.
            on_event: Called with what the pool says before its last answer.

        Raises:
            SpawnFailed: The runtime cannot run here; says what is missing.
            RunvisorError: What the pool answered with, or that it died.
        """
        self.renew()
        if (reason := self._placement.attached.unavailable.get(runtime)) is not None:
            raise SpawnFailed(reason, runtime)
        call = call or Call()
        request = {**request, "authority": self.authority, "execution": call.id}
        return unrefused(self._pools.send(runtime, self._pools.to(runtime), request, call, on_event=on_event))

    @property
    def authority(self) -> bytes:
        """The sealed authority that requests bear; see `renew`."""
        return self._placement.attached.authority

    def renew(self) -> None:
        """Attach anew if the authority is about to expire."""
        if time.time() > self._placement.attached.expires_at - _RENEW_BEFORE_S:
            self._placement.attach(self._attach())

    def start_pools(self, languages: Iterable[str]) -> None:
        """Have the pools that may run these languages started side by side; does not wait.

        Args:
            languages: Languages of tasks to come.
        """
        wanted = {arm.runtime for arm in ARMS if arm.languages.intersection(languages)}
        for runtime in wanted - self._pools.runtimes() - self._placement.attached.unavailable.keys():
            self.supervisor.pool.remote(runtime)

    def describe(self) -> dict[str, Any]:
        """Return the supervision tree and what cannot run here, as plain data."""
        tree: dict[str, Any] = ray.get(self.supervisor.describe.remote())
        return tree

    def close(self) -> None:
        """Send what is left to report and close the channels; closing twice is fine."""
        self._reporter.close()
        self._pools.close()

    def _attach(self) -> Attached:
        return Attached.from_wire(ask(self.supervisor.attach.remote(self.principal, int(self.trust), self._asked)))

    def _send(
        self,
        request: Message,
        placed: Placed,
        call: Call,
        on_event: OnEvent | None = None,
        shared: Sequence[int] = (),
    ) -> Message:
        """Send a request to where it was placed, and learn from a failure."""

        def learn(error: RunvisorError) -> None:
            self._learn(placed, None, error)

        answer = self._pools.send(
            placed.runtime, placed.link, request, call, on_event=on_event, shared=shared, on_crash=learn
        )
        try:
            return unrefused(answer)
        except RunvisorError as error:
            learn(error)
            raise

    def _learn(self, placed: Placed, usage: Usage | None, error: RunvisorError | None) -> None:
        self._reporter.add(Ended(placed, usage, error, time.time()))

    def _report(self, batch: list[Ended]) -> None:
        outcomes = [outcome.to_wire() for ended in batch if (outcome := ended.outcome()) is not None]
        if not outcomes:
            return
        published: Any = ray.get(self.supervisor.report.remote(self._name, outcomes))
        if published:
            self._placement.believe(published)


def _packed(value: Value) -> bytes:
    """Pack one input of a batch.

    Raises:
        InvalidTask: It may not cross the boundary.
    """
    with sealed_inputs(value) as inputs:
        return inputs.data if not inputs.memory else pack(value)
