"""Does a Python task fit the arm that runs CPython inside wasm?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from runvisor.policies.portable.check import objection
from runvisor.policies.task import Task

ARM: Final = "wasm/cpython"
RIVAL: Final = "python/native"
_MAX_ITEMS: Final = 20_000
_LEAVES: Final = frozenset((bool, int, float, str, bytes, type(None)))


def portable_fitness(task: Task, *, is_alone: bool) -> tuple[Mapping[str, str], str]:
    r"""Return why the arm is struck out, if it is, and what was found, if anything was.

    Args:
        task: A Python task.
        is_alone: No other arm may run the task, so that there are no answers to be equal to:
            only what the arm lacks altogether counts then.

    Example:
        >>> portable_fitness(Task("sorted([3, 1, 2])", "python"), is_alone=False)
        ({}, '')
        >>> portable_fitness(Task("import numpy", "python"), is_alone=False)[0]
        {'wasm/cpython': 'line 1: it imports numpy'}
    """
    if unfit := data_fitness(task):
        return unfit, ""
    why = _objection(task.source)
    if why is None:
        return {}, ""
    return ({}, f"Not sure to be answered as elsewhere: {why}.") if is_alone else ({ARM: why}, "")


def data_fitness(task: Task) -> Mapping[str, str]:
    """Return why the arm is struck out by what goes in beside the code, if it is."""
    if task.files:
        return {ARM: "it has no files"}
    return {} if _is_plain(task.inputs) else {ARM: "the inputs hold arrays, or are large"}


@lru_cache(maxsize=512)
def _objection(code: str) -> str | None:
    return objection(code)


def _is_plain(inputs: Any) -> bool:
    """Whether it is a moderate number of values, none of them an array."""
    if type(inputs) in _LEAVES:
        return True
    pending = [inputs]
    room = _MAX_ITEMS
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            parts = list(item.values())
        elif isinstance(item, list | tuple):
            parts = list(item)
        elif type(item) in _LEAVES:
            continue
        else:
            return False
        room -= len(parts)
        if room < 0:
            return False
        pending += [part for part in parts if type(part) not in _LEAVES]
    return True
