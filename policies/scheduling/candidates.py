"""Candidates that are made when somebody looks at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from runvisor.policies.scheduling.decision import Candidate


class Candidates(Sequence[Candidate]):
    """A tuple of candidates that is made on first use; most decisions are never explained.

    Example:
        >>> candidates = Candidates(lambda: (Candidate("wasm/module"),))
        >>> len(candidates), candidates[0].arm, candidates == (Candidate("wasm/module"),)
        (1, 'wasm/module', True)
    """

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], tuple[Candidate, ...]]) -> None:
        self._make: Callable[[], tuple[Candidate, ...]] | None = make
        self._made: tuple[Candidate, ...] = ()

    def _all(self) -> tuple[Candidate, ...]:
        make = self._make
        if make is not None:
            self._made = make()
            self._make = None
        return self._made

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._all())

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Candidate, ...]: ...
    def __getitem__(self, index: int | slice) -> Candidate | tuple[Candidate, ...]:
        return self._all()[index]

    def __eq__(self, other: object) -> bool:
        return self._all() == (other._all() if isinstance(other, Candidates) else other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._all(),)
