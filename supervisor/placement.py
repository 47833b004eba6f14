"""Placement: which arm runs a task, as one handle believes it, and what that run then teaches."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from runvisor.policies.errors import (
    Cancelled,
    EngineRefused,
    RunvisorError,
    SpawnFailed,
    TimeLimitExceeded,
)
from runvisor.policies.permissions import Permissions
from runvisor.policies.portable.fitness import data_fitness
from runvisor.policies.result import Usage
from runvisor.policies.scheduling.arms import ARMS, Arm, unfit_for_profile
from runvisor.policies.scheduling.base import BatchSelector, Context, Outcome
from runvisor.policies.scheduling.decision import Decision
from runvisor.policies.scheduling.eligibility import Field
from runvisor.policies.scheduling.families import family_of
from runvisor.policies.scheduling.features import asked_by, features_of
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.scheduling.selection import choose_from, decision_of, field_of
from runvisor.policies.scheduling.snapshot import Snapshot
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, OnExcess, Trust, resolve_grant
from runvisor.supervisor.fitness import fitness
from runvisor.supervisor.pool_links import PoolLink, PoolLinks
from runvisor.supervisor.refusals import Refusals, says_unfit

_KEPT: Final = 1024
"""Programs whose arms, families and features are kept; when there are more, all are found out anew."""
_KEPT_CODE: Final = 16 * 1024
"""What is known of longer programs is found out each time: keeping it would keep them."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a task runs, and what it is expected to be like there."""

    decision: Decision
    runtime: str
    variant: str
    link: PoolLink
    context: Context
    expected_s: float
    """Of one execution, waiting left out; 0 where nothing is known."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One execution that has ended, until somebody has time to learn from it."""

    placed: Placed
    usage: Usage | None
    """What it used; None if it gave no result."""
    error: RunvisorError | None
    """What it ended with."""
    at: float
    """When, in Unix seconds."""

    def outcome(self) -> Outcome | None:
        """Return what it teaches, or None if that is nothing."""
        error, context = self.error, self.placed.context
        arm = self.placed.decision.arm
        if isinstance(error, Cancelled) or says_unfit(arm, error):
            return None  # how long it ran was its caller's whim, or how soon it met what is not there
        usage = self.usage or Usage()
        timeout_s = context.timeout_s
        if isinstance(error, TimeLimitExceeded) and usage.wall_s > 0:
            timeout_s = min(timeout_s, usage.wall_s)  # CPU time ran out first: no more is known than that
        return Outcome.of(
            arm,
            context.family,
            error,
            service_s=usage.wall_s,
            wait_s=usage.queue_s,
            timeout_s=timeout_s,
            at=self.at,
            cold=usage.start_kind == "cold",
            features=context.features,
        )


@dataclass(frozen=True, slots=True)
class Attached:
    """What the supervisor gives to a handle that attaches."""

    authority: bytes
    """Sealed; pools believe it and nothing else."""
    expires_at: float
    """When the authority ends, in Unix seconds."""
    permissions: Permissions | None
    """The principal's own ceiling; None leaves only the trust levels'."""
    unavailable: Mapping[str, str]
    """Runtimes and arms that cannot run on this cluster, with the reason."""
    allow_untrusted_bpf: bool
    snapshot: Mapping[str, Any]
    """What the supervisor has learned, as it publishes it."""

    @classmethod
    def from_wire(cls, given: Mapping[str, Any]) -> Attached:
        """Read what `SupervisorActor.attach` returned."""
        limits = given["permissions"]
        return cls(**{**given, "permissions": None if limits is None else Permissions.from_dict(limits)})


class Placement:
    """Chooses arms for the tasks of one handle. Safe to use from many threads.

    Args:
        principal: On whose behalf.
        trust: Its trust ceiling.
        pools: Its ways to pools.
        attached: The terms.
        objective: What the choice makes small where a task does not say; None leaves it to the policy.
    """

    def __init__(
        self, principal: str, trust: Trust, pools: PoolLinks, attached: Attached, objective: Objective | None = None
    ) -> None:
        self._principal = principal
        self._trust = trust
        self._pools = pools
        self._objective = objective
        self._refusals = Refusals()
        self._random = random.Random()
        self._judged: dict[Hashable, tuple[Grant, Field]] = {}
        self._changing = threading.Lock()  # each change of the terms or the snapshot builds on the last one
        self.attached = attached
        self._snapshot = Snapshot.from_wire(attached.snapshot)

    def attach(self, attached: Attached) -> None:
        """Place by other terms from now on.

        Raises:
            ProtocolError: What was learned is no snapshot.
        """
        snapshot = Snapshot.from_wire(attached.snapshot)
        with self._changing:
            self._snapshot = snapshot
            self._adopt(attached)

    def believe(self, published: Mapping[str, Any]) -> None:
        """Take over what the supervisor has learned, unless it is older than what is known here.

        Raises:
            ProtocolError: It is no snapshot.
        """
        newer = Snapshot.from_wire(published)
        with self._changing:
            if newer.supersedes(self._snapshot):
                self._snapshot = newer

    def strike_out(self, runtime: str, reason: str) -> None:
        """Place nothing on a runtime that has turned out not to run here."""
        with self._changing:
            unavailable = {**self.attached.unavailable, runtime: reason}
            self._adopt(replace(self.attached, unavailable=unavailable))

    def note_refusal(self, task: Task, placed: Placed, refusal: EngineRefused) -> None:
        """Remember that an arm cannot take a program."""
        self._refusals.add(task, placed.decision.arm, refusal)

    def place(
        self,
        task: Task,
        on_excess: OnExcess,
        *,
        language_reason: str = "",
        arms: Sequence[Arm] = ARMS,
        input_bytes: int = 0,
    ) -> Placed:
        """Choose an arm for a task, and find its pool.

        Args:
            task: What is to run.
            on_excess: What to do about permissions beyond a ceiling.
            language_reason: How the language was found out, for the explanation.
            arms: Those to choose from.
            input_bytes: How large its inputs are.

        Raises:
            PolicyError: It asks for more than it may have, or no arm may run it.
            WorkerError: The supervisor does not answer.
        """
        while True:
            grant, field = self._field(task, on_excess, arms)
            context = self._context(task, grant, field, input_bytes)
            decision = self._decide(field, context, language_reason)
            placed = self._link(decision, context)
            if placed is not None:
                return placed

    def place_many(
        self, tasks: Sequence[Task], on_excess: OnExcess, *, language_reason: str = ""
    ) -> list[Placed | None]:
        """Choose arms for tasks that are about to be sent at once, each with those before it in view.

        Returns:
            A place for each, None for one that has to be placed alone: that says what is wrong with it.
        """
        policy = self._snapshot.policy
        places: list[Placed | None] = [None] * len(tasks)
        if len(tasks) < 2 or not isinstance(policy, BatchSelector):
            return places
        known: list[tuple[int, Field, Context]] = []
        for index, task in enumerate(tasks):
            with contextlib.suppress(RunvisorError):
                grant, field = self._field(task, on_excess, ARMS)
                known.append((index, field, self._context(task, grant, field, 0)))
        draws = [self._draws(field, context) for _, field, context in known]
        choices = policy.select_many([(context, field.eligible) for _, field, context in known], time.time(), draws)
        for (index, field, context), choice in zip(known, choices, strict=True):
            decision = decision_of(field, choice, policy, language_reason=language_reason)
            with contextlib.suppress(RunvisorError):
                places[index] = self._link(decision, context)
        return places

    def _adopt(self, attached: Attached) -> None:
        self.attached = attached
        self._judged = {}  # a new one, and last: what was judged by older terms may still be put into the old

    @staticmethod
    def sized(placed: Placed, task: Task, input_bytes: int) -> Placed:
        """Return a place with the size of the inputs, which `place_many` does not look at, among its features."""
        _, features = _studied(task, input_bytes)
        return replace(placed, context=replace(placed.context, features=features))

    def _link(self, decision: Decision, context: Context) -> Placed | None:
        """Find the pool of a chosen arm; None if it turns out not to run here, and is struck out from now on."""
        runtime, _, variant = decision.arm.partition("/")
        try:
            link = self._pools.to(runtime)
        except SpawnFailed as error:
            self.strike_out(runtime, str(error))
            return None
        return Placed(decision, runtime, variant, link, context, decision.expected_s)

    def _decide(self, field: Field, context: Context, language_reason: str) -> Decision:
        draws = self._draws(field, context)
        return choose_from(field, context, self._snapshot.policy, time.time(), draws, language_reason=language_reason)

    def _draws(self, field: Field, context: Context) -> Sequence[float]:
        """Return what exploration takes, which one arm or a deadline leave no room for."""
        if len(field.eligible) < 2 or context.critical:
            return ()
        return [self._random.gauss(0.0, 1.0) for _ in field.eligible]

    def _context(self, task: Task, grant: Grant, field: Field, input_bytes: int) -> Context:
        family, features = _studied(task, input_bytes)
        return Context(
            family,
            grant.permissions.timeout_s,
            self._pools.loads({arm.runtime for arm in field.eligible}),
            task.critical,
            features,
            task.objective or self._objective,
        )

    def _field(self, task: Task, on_excess: OnExcess, arms: Sequence[Arm]) -> tuple[Grant, Field]:
        """Return what a task is granted, and the arms that may run it."""
        refused = self._refusals.of(task)
        if arms is not ARMS or refused or len(task.code) > _KEPT_CODE:
            return self._judge(task, on_excess, arms, refused)
        unfit = data_fitness(task) if task.language == "python" else None
        key = (task.language, task.code, task.trust, task.profile, task.permissions, on_excess, bool(unfit))
        kept = self._judged  # before the terms are read: see `_adopt`
        judged = kept.get(key)
        if judged is None:
            if len(kept) >= _KEPT:
                kept.clear()
            judged = kept[key] = self._judge(task, on_excess, arms, refused)
        return judged

    def _judge(
        self, task: Task, on_excess: OnExcess, arms: Sequence[Arm], refused: Mapping[str, str]
    ) -> tuple[Grant, Field]:
        attached = self.attached
        grant = resolve_grant(
            task.permissions,
            task.trust,
            principal=self._principal,
            trust_ceiling=self._trust,
            permission_ceiling=attached.permissions,
            on_excess=on_excess,
        )
        unfit, found = fitness(task, grant, arms, attached.unavailable, refused)
        field = field_of(
            task.language,
            grant,
            arms,
            unavailable={**attached.unavailable, **unfit, **unfit_for_profile(arms, task.profile)},
            allow_untrusted_bpf=attached.allow_untrusted_bpf,
            found=found,
        )
        return grant, field


def _studied(task: Task, input_bytes: int) -> tuple[str, tuple[float, ...]]:
    study = _known_study if len(task.code) <= _KEPT_CODE else _study
    return study(task.language, task.code, input_bytes.bit_length(), int(asked_by(task.inputs)))


def _study(language: str, code: str | bytes, input_bits: int, asked: int) -> tuple[str, tuple[float, ...]]:
    """Return the family and the features of a task; inputs count by the power of two that their size is below."""
    return family_of(language, code, asked), features_of(language, code, (1 << input_bits) - 1, asked)


_known_study = lru_cache(_KEPT)(_study)
