"""Every contender on every regime and seed, side by side on the same luck; and what is made of the figures."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from benchmarks.scheduler.contenders import contender
from benchmarks.scheduler.regimes import Regime, regime
from benchmarks.scheduler.scores import score
from benchmarks.scheduler.simulator import Simulation
from benchmarks.scheduler.workload import draw

PROCESSES: Final = 2
NICE: Final = 10


@dataclass(frozen=True, slots=True)
class Job:
    """One workload, and who runs on it."""

    regime: str
    seed: int
    requests: int
    handles: int
    contenders: tuple[str, ...]


Cell = tuple[str, int, str]
"""(regime, handles, contender)."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds, with Student's 95% interval.

    Example:
        >>> interval([1.0, 2.0, 3.0])
        Interval(mean=2.0, half=2.484, most=3.0)
    """

    mean: float
    half: float
    most: float
    """The largest value of any seed."""

    @property
    def low(self) -> float:
        """Its lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Its upper end."""
        return self.mean + self.half


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of some seeds' figures with its interval; of one seed it is infinitely wide."""
    size = len(values)
    mean = float(np.mean(values))
    if size < 2:
        return Interval(round(mean, 6), float("inf"), max(values))
    half = float(stats.t.ppf(0.975, size - 1) * np.std(values, ddof=1) / np.sqrt(size))
    return Interval(round(mean, 6), float(f"{half:.4g}"), round(max(values), 6))


class Comparison:
    """Figures by regime, number of handles, contender and seed."""

    def __init__(self) -> None:
        self._figures: dict[Cell, dict[int, Mapping[str, float]]] = {}

    def add(self, job: Job, figures: Mapping[str, Mapping[str, float]]) -> None:
        """Take what came of a job, by contender."""
        for name, each in figures.items():
            self._figures.setdefault((job.regime, job.handles, name), {})[job.seed] = each

    def cells(self) -> list[Cell]:
        """Return what there are figures of, in the order of the regimes and contenders that were asked for."""
        return list(self._figures)

    def values(self, cell: Cell, figure: str) -> list[float]:
        """Return a figure of each seed, in the seeds' order."""
        return [each[figure] for _, each in sorted(self._figures[cell].items())]

    def interval(self, cell: Cell, figure: str) -> Interval:
        """Return a figure over the seeds."""
        return interval(self.values(cell, figure))

    def figures(self, cell: Cell) -> list[str]:
        """Return which figures there are of a cell."""
        return list(next(iter(self._figures[cell].values())))

    def advantage(self, regime: str, one: str, other: str, figure: str = "relative_regret") -> Interval:
        """Return how much larger a figure is for the other than for the one, in pairs of the same seed."""
        pairs = zip(self.values((regime, 1, other), figure), self.values((regime, 1, one), figure), strict=True)
        return interval([theirs - ours for theirs, ours in pairs])


def jobs(
    regimes: Iterable[Regime], contenders: Iterable[str], *, seeds: Iterable[int], requests: int, handles: int = 1
) -> list[Job]:
    """Return the jobs of a comparison, seed by seed, so that an interrupted one has seen every regime."""
    names, known = tuple(contenders), tuple(regimes)
    return [Job(each.name, seed, requests, handles, names) for seed in seeds for each in known]


def run(job: Job) -> dict[str, dict[str, float]]:
    """Run one job here; returns the figures by contender.

    ``total_cost`` is what the whole run cost above the oracle's own run, with the
    congestion that each made for itself, as a part of the oracle's.
    """
    workload = draw(regime(job.regime), job.seed, job.requests)
    figures = {}
    for name in job.contenders:
        each = contender(name)
        policy = each.make() if each.make is not None else None
        figures[name] = score(Simulation(workload, policy, handles=job.handles, objective=each.objective).run())
    ideal = figures.get("oracle")
    if ideal is not None:
        for each_figures in figures.values():
            each_figures["total_cost"] = each_figures["total_cost_ms"] / ideal["total_cost_ms"] - 1.0
    return figures


def compare(
    todo: Sequence[Job], *, processes: int = PROCESSES, nice: int = NICE, done: Callable[[], None] = lambda: None
) -> Comparison:
    """Run jobs side by side, in processes of their own; with one, here.

    Args:
        todo: The jobs.
        processes: How many at once; one is none but this.
        nice: How much they give way to others.
        done: Called after each job.
    """
    comparison = Comparison()
    found: dict[Job, dict[str, dict[str, float]]] = {}
    for job, figures in _each(todo, processes, nice):
        found[job] = figures
        done()
    for job in todo:
        comparison.add(job, found[job])
    return comparison


def _each(todo: Sequence[Job], processes: int, nice: int) -> Iterator[tuple[Job, dict[str, dict[str, float]]]]:
    """Yield each job with its figures, as soon as there are some."""
    if processes == 1:
        yield from ((job, run(job)) for job in todo)
        return
    context = multiprocessing.get_context("spawn")  # numpy's threads and a fork do not go together
    with ProcessPoolExecutor(processes, context, initializer=os.nice, initargs=(nice,)) as pool:
        futures = {pool.submit(run, job): job for job in todo}
        for future in as_completed(futures):
            yield futures[future], future.result()
