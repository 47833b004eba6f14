"""What would be chosen for a task, and why, without running it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from runvisor.policies.scheduling.arms import ARMS, unfit_for_profile
from runvisor.policies.scheduling.base import Load, Selector
from runvisor.policies.scheduling.decision import Decision
from runvisor.policies.scheduling.families import family_of
from runvisor.policies.scheduling.features import asked_by, features_of
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.scheduling.selection import choose
from runvisor.policies.task import Task
from runvisor.policies.trust import Trust, resolve_grant
from runvisor.supervisor.fitness import fitness


def decide(
    task: Task,
    selector: Selector,
    *,
    principal: str,
    unavailable: Mapping[str, str] | None = None,
    loads: Mapping[str, Load] | None = None,
    objective: Objective | None = None,
    language_reason: str = "",
) -> Decision:
    """Decide as a handle would just now, but try nothing merely to learn about it.

    Args:
        task: What would run, without its inputs.
        selector: What is believed.
        principal: On whose behalf.
        unavailable: Reason by runtime or arm that cannot run; None takes all for available.
        loads: How busy the pools are; None takes them for idle.
        objective: What to make small; None leaves it to the selector.
        language_reason: How the language was found out.

    Raises:
        PolicyError: It asks for more than it may have, or no arm may run it.
    """
    missing = unavailable or {}
    grant = resolve_grant(task.permissions, task.trust, principal=principal, trust_ceiling=Trust.TRUSTED)
    unfit, found = fitness(task, grant, ARMS, missing, {})
    return choose(
        task.language,
        family_of(task.language, task.code, asked_by(task.inputs)),
        grant,
        ARMS,
        unavailable={**missing, **unfit, **unfit_for_profile(ARMS, task.profile)},
        loads=loads or {},
        scheduler=selector,
        now=time.time(),
        draws=(),
        features=features_of(task.language, task.code, asked=asked_by(task.inputs)),
        objective=objective,
        language_reason=language_reason,
        found=found,
    )
