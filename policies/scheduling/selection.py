"""The one function a handle calls: from a task's grant to a decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from runvisor.policies.errors import NoEligibleArm
from runvisor.policies.scheduling.arms import Arm, asked_beyond_defaults, exclusion
from runvisor.policies.scheduling.base import Choice, Context, Load, Selector
from runvisor.policies.scheduling.candidates import Candidates
from runvisor.policies.scheduling.decision import Decision
from runvisor.policies.scheduling.eligibility import Field, eligibility_of
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.trust import Grant


def field_of(
    language: str,
    grant: Grant,
    arms: Iterable[Arm],
    *,
    unavailable: Mapping[str, str],
    allow_untrusted_bpf: bool = False,
    found: str = "",
) -> Field:
    """Apply the hard constraints; see `choose` for what they take.

    Raises:
        NoEligibleArm: Every arm is struck out; ``details["excluded"]`` has each reason.
    """
    everything = tuple(arms)
    field = eligibility_of(everything, language, grant, unavailable, allow_untrusted_bpf)
    if not field.eligible:
        raise _nothing_left(language, grant, everything, unavailable, allow_untrusted_bpf=allow_untrusted_bpf)
    return replace(field, found=found) if found else field


def choose_from(
    field: Field,
    context: Context,
    scheduler: Selector,
    now: float,
    draws: Sequence[float],
    *,
    language_reason: str = "",
) -> Decision:
    """Choose among the arms that may run a task; see `choose`."""
    choice = scheduler.select(context, field.eligible, now, draws)
    return decision_of(field, choice, scheduler, language_reason=language_reason)


def decision_of(field: Field, choice: Choice, scheduler: Selector, *, language_reason: str = "") -> Decision:
    """Return a policy's choice among the arms of a field with all that explains it."""
    candidates, excluded = choice.candidates, field.excluded
    return Decision(
        choice.arm,
        Candidates(lambda: (*candidates, *excluded)) if excluded else candidates,
        choice.explored,
        choice.objective or scheduler.objective,
        language_reason,
        field.found,
        choice.expected_s,
    )


def choose(
    language: str,
    family: str,
    grant: Grant,
    arms: Iterable[Arm],
    *,
    unavailable: Mapping[str, str],
    loads: Mapping[str, Load],
    scheduler: Selector,
    now: float,
    draws: Sequence[float],
    critical: bool = False,
    features: tuple[float, ...] = (),
    objective: Objective | None = None,
    cold: frozenset[str] | None = None,
    allow_untrusted_bpf: bool = False,
    language_reason: str = "",
    found: str = "",
) -> Decision:
    """Choose the arm that runs a task, and say why.

    Hard constraints come first: the scheduler never sees an arm that may not
    run the task, so no learning and no exploration can reach it.

    Args:
        language: The task's language, canonical.
        family: Tasks that are alike; see `runvisor.policies.scheduling.families.family_of`.
        grant: What the task was granted.
        arms: Every arm there is, in order of preference at equal score.
        unavailable: Reason by runtime or ``runtime/variant`` name, where one cannot run here.
        loads: How busy each runtime's pool is.
        scheduler: A snapshot's policy, or any other.
        now: Unix time in seconds.
        draws: Standard normal draws, at least one per arm; empty is no exploration.
        critical: Never use this task to learn.
        features: Numbers about the task; see `runvisor.policies.scheduling.features.features_of`.
        objective: What to make small; None leaves it to the policy.
        cold: Arms that would start it cold, if that is known.
        allow_untrusted_bpf: The operator lets untrusted programs into the kernel.
        language_reason: How the language was known, when it was not declared.
        found: What was found in the code that bears on the choice.

    Raises:
        NoEligibleArm: Every arm is struck out; ``details["excluded"]`` has each reason.

    Example:
        >>> from runvisor.policies.permissions import Permissions
        >>> from runvisor.policies.scheduling.arms import ARMS
        >>> from runvisor.policies.scheduling.baselines.preference import PreferenceScheduler
        >>> from runvisor.policies.trust import Trust
        >>> grant = Grant("p", Trust.UNTRUSTED, Permissions())
        >>> choose("typescript", "typescript:s", grant, ARMS, unavailable={}, loads={},
        ...        scheduler=PreferenceScheduler(), now=0.0, draws=()).explain()
        'Chose v8/isolate, the only arm that may run this task.'
    """
    field = field_of(
        language, grant, arms, unavailable=unavailable, allow_untrusted_bpf=allow_untrusted_bpf, found=found
    )
    context = Context(family, grant.permissions.timeout_s, loads, critical, features, objective, cold)
    return choose_from(field, context, scheduler, now, draws, language_reason=language_reason)


def _nothing_left(
    language: str, grant: Grant, arms: Sequence[Arm], unavailable: Mapping[str, str], *, allow_untrusted_bpf: bool
) -> NoEligibleArm:
    """Say why no arm is left, and what the nearest one would need."""
    excluded = {
        arm.name: exclusion(arm, language, grant, unavailable, allow_untrusted_bpf=allow_untrusted_bpf) for arm in arms
    }
    able = [arm for arm in arms if language in arm.languages]
    if not able:
        known = sorted({name for arm in arms for name in arm.languages})
        what, remedy = f"no arm runs {language}", f"the arms here run {', '.join(known) or 'nothing'}"
    else:
        what = f"no arm may run this {language} task as it is asked for"
        by_trust = sorted(able, key=lambda arm: arm.min_trust)  # a wider trust is the last thing to advise
        needs = (_needs(arm, grant, unavailable, allow_untrusted_bpf=allow_untrusted_bpf) for arm in by_trust)
        nearest: list[str] = min(needs, key=len)
        remedy = " and ".join(nearest)
    return NoEligibleArm(what, language, remedy, {"language": language, "excluded": excluded})


def _needs(arm: Arm, grant: Grant, unavailable: Mapping[str, str], *, allow_untrusted_bpf: bool) -> list[str]:
    """List what would have to change for one arm to run the task."""
    needs = [
        f"leave out {text}"
        for name, text in asked_beyond_defaults(grant.permissions).items()
        if name not in arm.enforces
    ]
    open_to_all = allow_untrusted_bpf and arm.runtime == "ebpf"
    if grant.trust < arm.min_trust and not open_to_all:
        needs.append(f"run it as {arm.min_trust.label} code")
    if arm.name in unavailable or arm.runtime in unavailable:
        needs.append(f"make {arm.name} available on this machine")
    return needs
