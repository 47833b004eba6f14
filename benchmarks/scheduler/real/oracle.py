"""What is known of each cell of a recording: an oracle from one half of its runs, the truth from the other.

An oracle that is scored with the samples it was made from looks better than
anything can be, for it has taken the least of noisy means. So it knows one half
(`Knowledge.known`), and everything is scored with the other (`Knowledge.true`).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.scheduler.real.recording import Key, Recording, Run, split

RHO: Final = 1.0
"""Seconds of mean that a second of deviation is worth."""
CLEARLY: Final = 1.05
"""An arm is not the best if it costs more than so many times the least."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and deviation of what callers felt, waiting for an instance left out."""

    mean_s: float
    std_s: float

    @classmethod
    def of(cls, times_s: Sequence[float]) -> Moments:
        """Return those of samples.

        Example:
            >>> Moments.of([1.0, 3.0])
            Moments(mean_s=2.0, std_s=1.0)
        """
        return cls(statistics.fmean(times_s), statistics.pstdev(times_s))

    @property
    def cost_s(self) -> float:
        """Mean plus weighed deviation."""
        return self.mean_s + RHO * self.std_s


def felt_s(run: Run) -> float:
    """Return what a run took without its waiting: the service, and the way there and back."""
    return max(1e-6, run.elapsed_s - run.wait_s)


@dataclass(frozen=True)
class Knowledge:
    """Both halves of a recording's cells, of its quiet or of its hogged rounds."""

    known: Mapping[Key, Moments]
    true: Mapping[Key, Moments]
    samples: Mapping[Key, tuple[float, ...]]
    """Those that the truth is made of."""

    @classmethod
    def of(cls, recording: Recording, *, hogged: bool = False) -> Knowledge:
        """Divide a recording; cells with fewer than four runs are left out."""
        halves = {
            key: [[felt_s(run) for run in half] for half in split(runs)]
            for key, runs in recording.cells(hogged=hogged).items()
            if len(runs) >= 4
        }
        return cls(
            {key: Moments.of(half) for key, (half, _) in halves.items()},
            {key: Moments.of(half) for key, (_, half) in halves.items()},
            {key: tuple(half) for key, (_, half) in halves.items()},
        )

    def best(self, program: str, size: int) -> str:
        """Return the arm that the oracle takes for a program of a size while nothing waits."""
        return min(self._arms(program, size), key=lambda arm: self.known[program, size, arm].cost_s)

    def contested(self) -> frozenset[str]:
        """Return the programs for which no single arm is always best.

        By either half of the runs, every arm costs clearly more than the best one at some size.
        """
        programs = {program for program, _, _ in self.known}
        return frozenset(
            program for program in programs if all(self._is_open(program, half) for half in (self.known, self.true))
        )

    def _is_open(self, program: str, half: Mapping[Key, Moments]) -> bool:
        sizes = {size for name, size, _ in half if name == program}
        costs = [{arm: half[program, size, arm].cost_s for arm in self._arms(program, size)} for size in sizes]
        arms = {arm for table in costs for arm in table}
        return len(arms) > 1 and all(
            any(table.get(arm, float("inf")) > CLEARLY * min(table.values()) for table in costs) for arm in arms
        )

    def _arms(self, program: str, size: int) -> list[str]:
        return [arm for name, place, arm in self.known if (name, place) == (program, size)]
