"""What a subtask's code finds as ``inputs``, and what a ``for_each`` runs over. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from runvisor.policies.errors import InvalidPlan
from runvisor.policies.values import Value
from runvisor.supervisor.plan.decompose import Graph
from runvisor.supervisor.plan.model import INDEX
from runvisor.supervisor.plan.references import ITEM

MAX_FAN_OUT: Final = 4096
"""Most elements that one ``for_each`` runs over: the list comes from a guest."""


def inputs_of(
    graph: Graph, step_id: str, values: Mapping[str, Value], items: Sequence[Value] = (), index: int | None = None
) -> Value:
    """Return the inputs of one run of a step.

    Args:
        graph: The plan.
        step_id: The step; all that it waits for is done.
        values: Values of the steps that are done.
        items: What its ``for_each`` runs over.
        index: Which of them; None for a plain step.

    Raises:
        InvalidPlan: What ``inputs`` refers to is not there.
    """
    step = graph.steps[step_id]
    extra = {} if index is None else {ITEM: items[index], INDEX: index}
    if step.inputs_from is not None:
        return step.inputs_from.resolve({**values, **extra})
    delivered = {needed: values[needed] for needed in graph.delivered_to(step_id)}
    return {**step.inputs, **delivered, **extra}


def elements_of(graph: Graph, step_id: str, values: Mapping[str, Value]) -> list[Value]:
    """Return what a ``for_each`` step runs over: a list, a dict's items as pairs, an array's rows.

    Raises:
        InvalidPlan: It is none of these, or has more than `MAX_FAN_OUT` elements.
    """
    reference = graph.steps[step_id].for_each
    assert reference is not None
    value = reference.resolve(values)
    is_array = getattr(value, "ndim", 0) > 0
    if not is_array and not isinstance(value, Mapping | list | tuple):
        raise InvalidPlan(
            f"{reference} is of type {type(value).__name__}", "", "for_each runs over a list, a dict or an array"
        )
    if len(value) > MAX_FAN_OUT:
        raise InvalidPlan(
            f"{reference} has {len(value)} elements, more than {MAX_FAN_OUT}", "", "put several into each element"
        )
    if isinstance(value, Mapping):
        return [[key, item] for key, item in value.items()]
    return list(value)
