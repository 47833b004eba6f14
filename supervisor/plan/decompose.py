"""Breaking a plan into its graph: what each step waits for, and why. Pure."""

from __future__ import annotations

import difflib
import graphlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from runvisor.policies.errors import InvalidPlan
from runvisor.supervisor.plan.mentions import mentioned_inputs
from runvisor.supervisor.plan.model import Plan, Step
from runvisor.supervisor.plan.references import ITEM

Why = Literal["needs", "mentioned", "for_each", "inputs"]


@dataclass(frozen=True, slots=True)
class Dependency:
    """One step that must be done first."""

    step: str
    why: Why
    """``needs`` (said so), ``mentioned`` (by the code), ``for_each`` or ``inputs`` (an attribute refers to it)."""

    @property
    def is_delivered(self) -> bool:
        """Whether the value arrives as ``inputs["step"]``; references deliver theirs in their own way."""
        return self.why in ("needs", "mentioned")


@dataclass(frozen=True, slots=True)
class Graph:
    """A plan with its dependencies.

    Example:
        >>> steps = (Step("load", "[1, 2]", "python"), Step("sum", "sum(inputs['load'])", "python"))
        >>> graph = decompose(Plan("Sum", steps))
        >>> graph.needs["sum"]
        (Dependency(step='load', why='mentioned'),)
    """

    plan: Plan
    steps: Mapping[str, Step]
    needs: Mapping[str, tuple[Dependency, ...]]
    """By step id; each step at most once among the dependencies that deliver it."""
    dependants: Mapping[str, tuple[str, ...]]
    order: tuple[str, ...]
    """Every step after all that it waits for."""

    def waits_for(self, step_id: str) -> tuple[str, ...]:
        """Return the ids that must be done before a step, each once."""
        return tuple(dict.fromkeys(dependency.step for dependency in self.needs[step_id]))

    def delivered_to(self, step_id: str) -> tuple[str, ...]:
        """Return the ids whose values a step finds in its inputs under their own names."""
        if self.steps[step_id].inputs_from is not None:
            return ()
        return tuple(dependency.step for dependency in self.needs[step_id] if dependency.is_delivered)


def decompose(plan: Plan) -> Graph:
    """Find the dependencies of every step.

    A step depends on what it lists in ``needs``, on what ``for_each`` and
    ``inputs`` refer to, and on every step of the plan that its code mentions as
    an input. Code that gets its whole input from one step (``inputs=prepare``)
    mentions parts of that value, not steps, so nothing is inferred from it.

    Raises:
        InvalidPlan: A reference to a step that does not exist, a static input
            that would hide a step's value, or a cycle (with its path).
    """
    steps = {step.id: step for step in plan.steps}
    needs = {step.id: _dependencies(step, steps) for step in plan.steps}
    waits = {step_id: dict.fromkeys(d.step for d in found) for step_id, found in needs.items()}
    sorter = graphlib.TopologicalSorter(waits)
    try:
        order = tuple(sorter.static_order())
    except graphlib.CycleError as error:
        raise _cycle(error.args[1], steps, needs) from None
    dependants: dict[str, list[str]] = {step_id: [] for step_id in steps}
    for step_id in steps:
        for needed in waits[step_id]:
            dependants[needed].append(step_id)
    return Graph(plan, steps, needs, {key: tuple(found) for key, found in dependants.items()}, order)


def _dependencies(step: Step, steps: Mapping[str, Step]) -> tuple[Dependency, ...]:
    found = [Dependency(needed, "needs") for needed in step.needs]
    if step.for_each is not None:
        found.append(Dependency(step.for_each.step, "for_each"))
    if step.inputs_from is not None and step.inputs_from.step != ITEM:
        found.append(Dependency(step.inputs_from.step, "inputs"))
    for dependency in found:
        if dependency.step not in steps:
            raise _unknown(step, dependency, steps)
    if step.inputs_from is None:
        mentioned = mentioned_inputs(step.code, step.language)
        found += [Dependency(name, "mentioned") for name in mentioned if name in steps and name not in step.needs]
    for dependency in found:
        if dependency.is_delivered and dependency.step in step.inputs:
            raise InvalidPlan(
                f"the static input {dependency.step!r} hides the value of the step it needs",
                step.where,
                "rename the input or the step",
                {"step": step.id, "line": step.line},
            )
    return tuple(found)


def _unknown(step: Step, dependency: Dependency, steps: Mapping[str, Step]) -> InvalidPlan:
    near = difflib.get_close_matches(dependency.step, steps, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    known = ", ".join(list(steps)[:20]) + (", ..." if len(steps) > 20 else "")
    return InvalidPlan(
        f"{dependency.why} names {dependency.step!r}, which is not a step",
        step.where,
        f"{hint}steps: {known}",
        {"step": step.id, "line": step.line, "unknown": dependency.step},
    )


def _cycle(path: list[str], steps: Mapping[str, Step], needs: Mapping[str, tuple[Dependency, ...]]) -> InvalidPlan:
    """Say the cycle as an arrow path from each step to the one it waits for."""
    path = path[::-1]  # graphlib goes from what is needed to what needs it
    lines = [f"{steps[later].where} {_because(earlier, needs[later])}" for later, earlier in itertools.pairwise(path)]
    if len(path) == 2:
        what = f"the step {path[0]} waits for itself"
    else:
        what = f"the steps wait for each other in a circle: {' -> '.join(path)}"
    return InvalidPlan(
        what, "; ".join(lines[:10]), "take one of these dependencies out", {"cycle": path, "line": steps[path[0]].line}
    )


def _because(needed: str, dependencies: tuple[Dependency, ...]) -> str:
    why = next(dependency.why for dependency in dependencies if dependency.step == needed)
    text = {"needs": "needs", "mentioned": "mentions", "for_each": "runs over", "inputs": "takes its inputs from"}[why]
    return f"{text} {needed}"
