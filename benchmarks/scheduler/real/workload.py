"""The workload: programs of three languages, each asked for with inputs of several sizes.

It was put together to be mixed, not to suit a policy: what agents write, from
one-liners to loops over half a million rounds. Which arm is best where is not
assumed; the recording says it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from benchmarks.scheduler.real.programs.javascript import JAVASCRIPT
from benchmarks.scheduler.real.programs.program import Program
from benchmarks.scheduler.real.programs.python import PYTHON
from benchmarks.scheduler.real.programs.records import RECORDS

PROGRAMS: Final[Mapping[str, Program]] = {program.name: program for program in (*PYTHON, *JAVASCRIPT, *RECORDS)}
"""By name."""
HELD_OUT: Final = frozenset(
    {
        "python recursion",
        "python regex",
        "python tables",
        "python small programs",
        "javascript recursion",
        "javascript collections",
        "record groups",
    }
)
"""Families that no policy has seen before the comparison begins."""
_SHARES: Final = {1: (1,), 3: (10, 9, 6)}
"""Of how many runs go to each size, from small to large: what is large takes long."""


def size_order(program: Program) -> tuple[int, ...]:
    """Return the cycle in which a program's sizes are asked for, as places in its sizes.

    Example:
        >>> [size_order(PROGRAMS["fibonacci"]).count(place) for place in range(3)]
        [10, 9, 6]
    """
    shares = _SHARES[len(program.sizes)]
    total = sum(shares)
    spread = [(((step + 0.5) / share, place)) for place, share in enumerate(shares) for step in range(share)]
    order = tuple(place for _, place in sorted(spread))
    assert len(order) == total
    return order


def families(programs: Iterable[Program]) -> set[str]:
    """Return the families of programs."""
    return {program.family for program in programs}
