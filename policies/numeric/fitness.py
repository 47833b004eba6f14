"""Does a Python task fit the arm that compiles numeric functions? A cheap look at its source."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from runvisor.policies.numeric.eligibility import candidates

ARM: Final = "python/jit"
_MAX_NAMED: Final = 5
_UNFIT: Final[Mapping[str, str]] = {ARM: "no numeric function in it can become hot"}


@lru_cache(maxsize=512)
def numeric_fitness(code: str) -> tuple[Mapping[str, str], str]:
    r"""Return why the arm is struck out, if it is, and what was found, if anything was.

    Args:
        code: Python source.

    Example:
        >>> numeric_fitness("1 + 1")
        ({'python/jit': 'no numeric function in it can become hot'}, '')
        >>> numeric_fitness("def f(n):\n    return sum(i * i for i in range(n))\nf(10)")[1]
        'If they become hot, python/jit compiles: f.'
    """
    if "def " not in code:
        return _UNFIT, ""
    found = candidates(code)
    if not found:
        return _UNFIT, ""
    names = ", ".join(found[:_MAX_NAMED]) + (", ..." if len(found) > _MAX_NAMED else "")
    return {}, f"If they become hot, {ARM} compiles: {names}."
