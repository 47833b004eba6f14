"""The handle: decides by itself, talks to pools directly, reports what happened.

No central hop lies on the way of a task. The handle holds a read-only copy of
what the supervisor has learned and a sealed authority; the pool believes only
the latter.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import ray

from runvisor.actors.channel.base import Channel, OnEvent
from runvisor.actors.channel.frames import Message
from runvisor.policies.batches import Ending, endings_of
from runvisor.policies.errors import Cancelled, EngineRefused, ProtocolError, RunvisorError, SpawnFailed, WorkerCrashed
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result, Usage
from runvisor.policies.scheduling.arms import ARMS, Arm, unfit_for_profile
from runvisor.policies.scheduling.decision import Decision
from runvisor.policies.scheduling.families import family_of
from runvisor.policies.scheduling.selection import choose
from runvisor.policies.scheduling.snapshot import Outcome, Snapshot
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, OnExcess, Trust, resolve_grant
from runvisor.policies.values import Value, pack
from runvisor.supervisor.execution import Call
from runvisor.supervisor.fitness import fitness
from runvisor.supervisor.pool_links import PoolLink, PoolLinks, ask
from runvisor.supervisor.refusals import Refusals
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

    Raises:
        TrustViolation: The operator allows less trust.
    """

    def __init__(self, supervisor: Any, principal: str, trust: Trust, permissions: Permissions | None = None) -> None:
        self.supervisor = supervisor
        self.principal = principal
        self.trust = trust
        self._asked = permissions.to_dict() if permissions is not None else None
        self._pools = PoolLinks(supervisor)
        self._name = secrets.token_hex(8)
        self._random = random.Random()
        self._unavailable: Mapping[str, str] = {}
        self._refusals = Refusals()
        self._attach()
        self._reporter = Reporter(self._report)

    @property
    def permission_ceiling(self) -> Permissions | None:
        """The principal's own ceiling; None leaves only the trust levels'."""
        return self._ceiling

    def run(
        self,
        task: Task,
        *,
        on_excess: OnExcess = "refuse",
        language_reason: str = "",
        call: Call | None = None,
        on_event: OnEvent | None = None,
        arms: Sequence[Arm] = ARMS,
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
            wire = {**replace(task, inputs=None).to_wire(), "inputs": inputs.data}
            shared = [part.fileno() for part in inputs.memory]
            while True:
                decision, runtime, variant, pool = self._place(task, on_excess, language_reason, arms)
                if result is not None and decision.arm in asked:
                    return result  # what refused it is all there is
                request = {
                    "op": "execute",
                    "authority": self._authority,
                    "variant": variant,
                    "on_excess": on_excess,
                    "execution": call.id,
                    "stream": on_event is not None,
                    "task": wire,
                }
                answer = self._request(request, runtime, pool, decision, task, on_event, call, shared)
                result = self._read(answer, runtime, decision, task)
                if not isinstance(result.error, EngineRefused) or runtime != _REFUSES_FIRST:
                    return result
                asked.add(decision.arm)
                self._refusals.add(task, decision.arm, result.error)

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
            decision, runtime, variant, pool = self._place(task, on_excess, language_reason, ARMS)
            rest = packed[len(endings) :]
            call = Call()
            request = {
                "op": "execute batch",
                "authority": self._authority,
                "variant": variant,
                "on_excess": on_excess,
                "execution": call.id,
                "task": replace(task, inputs=None).to_wire(),
                "inputs": rest,
            }
            answer = self._request(request, runtime, pool, decision, task, None, call, ())
            self._note_load(answer, runtime, decision, task)
            names = {"runtime": runtime, "variant": variant, "language": task.language}
            found = endings_of(answer, **names, most=len(rest)) if answer.get("op") == "endings" else []
            if not found:
                raise ProtocolError(f"the pool answered a batch with {answer.get('op')!r}", runtime)
            for ending in found[:: 1 + len(found) // _LEARNED]:
                if isinstance(ending, Result):
                    self._learn(decision, task, ending, ending.error)
            endings += [item.with_decision(decision) if isinstance(item, Result) else item for item in found]
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
        _, runtime, variant, pool = self._place(task, on_excess, "", arms)
        request = {**request, "authority": self._authority, "task": task.to_wire(), "variant": variant}
        try:
            answer = pool.channel.request(request)
        except WorkerCrashed:
            pool = self._pools.successor(runtime, pool)
            answer = pool.channel.request(request)
        if answer.get("op") == "error":
            raise RunvisorError.from_wire(answer["error"])
        return pool.channel, answer

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
        if runtime in self._unavailable:
            raise SpawnFailed(self._unavailable[runtime], runtime)
        pool, call = self._pools.to(runtime), call or Call()
        request = {**request, "authority": self._authority, "execution": call.id}
        word = {"op": "cancel", "execution": call.id, "authority": self._authority}
        call.sending(lambda: pool.channel.request(word))
        try:
            answer = pool.channel.request(request, on_event)
        except WorkerCrashed as error:
            if error.details.get("started"):
                raise
            pool = self._pools.successor(runtime, pool)
            call.sending(lambda: pool.channel.request(word))
            answer = pool.channel.request(request, on_event)
        if answer.get("op") == "error":
            raise RunvisorError.from_wire(answer["error"])
        return answer

    @property
    def authority(self) -> bytes:
        """The sealed authority that requests bear; see `renew`."""
        return self._authority

    def renew(self) -> None:
        """Attach anew if the authority is about to expire."""
        if time.time() > self._expires_at - _RENEW_BEFORE_S:
            self._attach()

    def start_pools(self, languages: Iterable[str]) -> None:
        """Have the pools that may run these languages started side by side; does not wait.

        Args:
            languages: Languages of tasks to come.
        """
        wanted = {arm.runtime for arm in ARMS if arm.languages.intersection(languages)}
        for runtime in wanted - self._pools.runtimes() - self._unavailable.keys():
            self.supervisor.pool.remote(runtime)

    def describe(self) -> dict[str, Any]:
        """Return the supervision tree and what cannot run here, as plain data."""
        tree: dict[str, Any] = ray.get(self.supervisor.describe.remote())
        return tree

    def close(self) -> None:
        """Send what is left to report and close the channels; closing twice is fine."""
        self._reporter.close()
        self._pools.close()

    def _attach(self) -> None:
        given = ask(self.supervisor.attach.remote(self.principal, int(self.trust), self._asked))
        self._authority: bytes = given["authority"]
        self._expires_at: float = given["expires_at"]
        limits = given["permissions"]
        self._ceiling = None if limits is None else Permissions.from_dict(limits)
        self._unavailable = given["unavailable"]
        self._allow_untrusted_bpf: bool = given["allow_untrusted_bpf"]
        self._snapshot = Snapshot.from_wire(given["snapshot"])

    def _place(
        self, task: Task, on_excess: OnExcess, language_reason: str, arms: Sequence[Arm]
    ) -> tuple[Decision, str, str, PoolLink]:
        """Choose an arm for a task: its decision, runtime, variant and pool."""
        self.renew()
        grant = resolve_grant(
            task.permissions,
            task.trust,
            principal=self.principal,
            trust_ceiling=self.trust,
            permission_ceiling=self._ceiling,
            on_excess=on_excess,
        )
        while True:
            decision = self._decide(task, grant, language_reason, arms)
            runtime, _, variant = decision.arm.partition("/")
            try:
                return decision, runtime, variant, self._pools.to(runtime)
            except SpawnFailed as error:
                # Found out now rather than by the probe: the arm is struck out, and the next one chosen.
                self._unavailable = {**self._unavailable, runtime: str(error)}

    def _decide(self, task: Task, grant: Grant, language_reason: str, arms: Sequence[Arm]) -> Decision:
        unfit, found = fitness(task, grant, arms, self._unavailable, self._refusals.of(task))
        return choose(
            task.language,
            family_of(task.language, task.code),
            grant,
            arms,
            unavailable={**self._unavailable, **unfit, **unfit_for_profile(arms, task.profile)},
            loads=self._pools.loads(),
            scheduler=self._snapshot.policy,
            now=time.time(),
            draws=[self._random.gauss(0.0, 1.0) for _ in arms],
            allow_untrusted_bpf=self._allow_untrusted_bpf,
            language_reason=language_reason,
            found=found,
        )

    def _request(
        self,
        request: Message,
        runtime: str,
        pool: PoolLink,
        decision: Decision,
        task: Task,
        on_event: OnEvent | None,
        call: Call,
        shared: Sequence[int],
    ) -> Message:
        """Send a request; once more, to the spare, if the pool died before the task had started."""

        def send(channel: Channel) -> Message:
            word = {"op": "cancel", "execution": call.id, "authority": self._authority}
            call.sending(lambda: channel.request(word))
            return channel.request(request, on_event, shared)

        try:
            return send(pool.channel)
        except WorkerCrashed as error:
            self._learn(decision, task, None, error)
            successor = self._pools.successor(runtime, pool)
            if error.details.get("started"):
                raise
            return send(successor.channel)

    def _note_load(self, answer: Message, runtime: str, decision: Decision, task: Task) -> None:
        """Note how busy the pool says that it is, and raise the error that it answered with."""
        self._pools.note_load(runtime, answer.get("load"))
        if answer.get("op") == "error":
            error = RunvisorError.from_wire(answer["error"])
            self._learn(decision, task, None, error)
            raise error

    def _read(self, answer: Message, runtime: str, decision: Decision, task: Task) -> Result:
        self._note_load(answer, runtime, decision, task)
        if answer.get("op") != "result":
            raise ProtocolError(f"the pool answered with {answer.get('op')!r}", runtime)
        result = Result.from_wire(answer["result"])
        self._learn(decision, task, result, result.error)
        return result.with_decision(decision)

    def _learn(self, decision: Decision, task: Task, result: Result | None, error: RunvisorError | None) -> None:
        if isinstance(error, Cancelled):
            return  # how long it ran was its caller's whim
        usage = result.usage if result is not None else Usage()
        outcome = Outcome.of(
            decision.arm,
            family_of(task.language, task.code),
            error,
            service_s=usage.wall_s,
            wait_s=usage.queue_s,
            timeout_s=task.permissions.timeout_s,
            at=time.time(),
            cold=usage.start_kind == "cold",
        )
        if outcome is not None:
            self._reporter.add(outcome.to_wire())

    def _report(self, batch: list[Any]) -> None:
        published: Any = ray.get(self.supervisor.report.remote(self._name, batch))
        if not published:
            return
        newer = Snapshot.from_wire(published)
        if newer.supersedes(self._snapshot):
            self._snapshot = newer


def _packed(value: Value) -> bytes:
    """Pack one input of a batch.

    Raises:
        InvalidTask: It may not cross the boundary.
    """
    with sealed_inputs(value) as inputs:
        return inputs.data if not inputs.memory else pack(value)
