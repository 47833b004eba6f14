"""Does a JavaScript task fit the arm that runs QuickJS? A cheap look at its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runvisor.policies.javascript.profile import objections

ARM: Final = "wasm/quickjs"
RIVAL: Final = "v8/isolate"
_NO_OBJECTIONS: Final[tuple[Mapping[str, str], str]] = ({}, "")


def quickjs_fitness(code: str, *, is_alone: bool) -> tuple[Mapping[str, str], str]:
    """Return why the arm is struck out, if it is, and what was found, if anything was.

    Args:
        code: JavaScript source.
        is_alone: No other arm may run the task, so that there are no answers to be equal to:
            only what QuickJS lacks counts then.

    Example:
        >>> quickjs_fitness("Math.sin(1)", is_alone=False)[0]
        {'wasm/quickjs': 'it uses Math.sin, whose answers may differ from V8'}
        >>> quickjs_fitness("Math.sin(1)", is_alone=True)
        ({}, 'Of the program: it uses Math.sin, whose answers may differ from V8.')
    """
    found = objections(code)
    if found.absent:
        return {ARM: found.absent}, ""
    if not found.unequal:
        return _NO_OBJECTIONS
    return ({}, f"Of the program: {found.unequal}.") if is_alone else ({ARM: found.unequal}, "")
