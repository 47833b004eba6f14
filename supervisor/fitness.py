"""Which arms the code itself rules out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runvisor.policies.javascript.fitness import ARM, RIVAL, quickjs_fitness
from runvisor.policies.numeric.fitness import numeric_fitness
from runvisor.policies.portable import fitness as portable
from runvisor.policies.scheduling.arms import Arm, split_eligible
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant


def fitness(
    task: Task, grant: Grant, arms: Sequence[Arm], unavailable: Mapping[str, str], refused: Mapping[str, str]
) -> tuple[Mapping[str, str], str]:
    """Look into a task's code for what some arms of its language cannot run.

    Args:
        task: Its code and language.
        grant: What it may do.
        arms: Those that are thought of.
        unavailable: Runtimes and arms that this cluster lacks, with the reason.
        refused: Arms that refused this very program before, with the reason; they are asked again
            only if no other one is left.

    Returns:
        The arms that are ruled out, each with its reason, and a sentence on what was found.
    """

    def is_alone(rival: str) -> bool:
        rivals = [arm for arm in arms if arm.name == rival]
        return not split_eligible(rivals, task.language, grant, unavailable)[0]

    if task.language == "python":
        unfit, found = numeric_fitness(task.source)
        if portable.ARM not in unavailable:
            why, more = portable.portable_fitness(task, is_alone=is_alone(portable.RIVAL))
            unfit, found = {**unfit, **why}, f"{found} {more}".strip()
        return unfit, found
    if task.language == "javascript" and ARM not in unavailable:
        return quickjs_fitness(task.source, is_alone=is_alone(RIVAL))
    if refused and split_eligible(arms, task.language, grant, {**unavailable, **refused})[0]:
        return refused, ""
    return {}, ""
