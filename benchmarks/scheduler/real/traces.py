"""Workloads for the simulator whose luck is drawn from a recording.

A request is one of the recorded tasks, popular by Zipf's law; what it would
take on each arm is a real sample of that arm, from the half that the oracle
does not know. During the first third only families for training come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np

from benchmarks.scheduler.real.arms import ARM_NAMES, BY_NAME, RUNTIMES
from benchmarks.scheduler.real.oracle import RHO, Knowledge, Moments
from benchmarks.scheduler.real.programs.program import Program
from benchmarks.scheduler.real.recording import Recording
from benchmarks.scheduler.real.workload import HELD_OUT, PROGRAMS, size_order
from benchmarks.scheduler.regimes import BROKEN_SPAN, Regime
from benchmarks.scheduler.workload import Floats, Workload, arrivals
from runvisor.policies.scheduling.families import family_of
from runvisor.policies.scheduling.features import asked_by, features_of
from runvisor.policies.task import Task
from runvisor.policies.values import pack

REQUESTS: Final = 6000
TRAINING: Final = 1 / 3
"""Part of a run in which held-out families do not come; it is not scored."""
NOISE_SPAN: Final = (0.5, 0.75)
SLOWDOWN: Final = 3.0
_ZIPF: Final = 0.8
_SLO_TIMES: Final = (3.0, 6.0, 15.0)
"""Of the mean of the best arm; drawn for each request."""
_CRITICAL: Final = 0.3
ARMS: Final = tuple(BY_NAME[name] for name in ARM_NAMES)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a replay is like. Fixed before any policy was replayed."""

    name: str
    utilisation: float
    """Of the machine's cores, if every request ran on its best arm."""
    noise: Literal["", "hog", "slow", "broken"] = ""
    """During `NOISE_SPAN`: a core kept busy (real samples), or a runtime that takes three times as long;
    during the simulator's `BROKEN_SPAN`: an arm that fails. Which one changes from seed to seed."""


SETTINGS: Final = (
    Setting("calm", 0.2),
    Setting("busy", 0.5),
    Setting("core kept busy", 0.2, "hog"),
    Setting("slowed runtime", 0.2, "slow"),
    Setting("broken arm", 0.2, "broken"),
)
BROKEN: Final = ("python/native", "v8/isolate", "wasm/quickjs", "ebpf/record")


@dataclass(frozen=True)
class Trace:
    """A workload, and what its requests are."""

    workload: Workload
    programs: tuple[str, ...]
    """By request."""
    sizes: tuple[int, ...]

    @property
    def scored(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which requests count: those after the training."""
        return np.arange(len(self.programs)) >= TRAINING * len(self.programs)


class Replays:
    """Draws workloads from one recording.

    Args:
        recording: Where all of it comes from.
    """

    def __init__(self, recording: Recording) -> None:
        self.quiet = Knowledge.of(recording)
        self.hogged = Knowledge.of(recording, hogged=True)
        self.contested = self.quiet.contested()
        self._instances = int(recording.about["instances"])
        self._cores = int(recording.about["cores"])
        self.programs = [PROGRAMS[name] for name in recording.arms() if name in PROGRAMS]
        self._cells = sorted({(name, size) for name, size, _ in self.quiet.known})
        self._tables = [_table(self._cells, half) for half in (self.quiet.known, self.quiet.true)]
        self._samples = [_samples(cell, self.quiet) for cell in self._cells]
        # A cell that has too few hogged runs is as it always is.
        hogged = [_table(self._cells, half) for half in (self.hogged.known, self.hogged.true)]
        rare = np.isnan(hogged[0]) | np.isnan(hogged[1])
        self._hogged_tables = [np.where(rare, *pair) for pair in zip(self._tables, hogged, strict=True)]
        self._hogged_samples = [
            {**usual, **_samples(cell, self.hogged)} for cell, usual in zip(self._cells, self._samples, strict=True)
        ]
        self._studies = [study(PROGRAMS[name], size) for name, size in self._cells]

    def draw(self, setting: Setting, seed: int, requests: int = REQUESTS) -> Trace:
        """Draw a trace; the same one for the same arguments."""
        chance = np.random.default_rng([seed, 20_30])
        cells = self._arrange(chance, requests)
        place = np.arange(requests) / requests
        noisy = (place >= NOISE_SPAN[0]) & (place < NOISE_SPAN[1])
        hogged = noisy & (setting.noise == "hog")
        known, true = (
            np.where(hogged[:, None, None], under[cells], usual[cells])
            for usual, under in zip(self._tables, self._hogged_tables, strict=True)
        )
        service = np.full((requests, len(ARMS)), np.nan)
        uniform = chance.random(service.shape)
        for request, cell in enumerate(cells):
            found = (self._hogged_samples if hogged[request] else self._samples)[cell]
            for arm, samples in found.items():
                service[request, arm] = samples[int(uniform[request, arm] * len(samples))]
        if setting.noise == "slow":
            columns = np.array([arm.runtime == slowed_runtime(seed) for arm in ARMS])
            for matrix in (service, known[..., 0], known[..., 1], true[..., 0], true[..., 1]):
                matrix[np.ix_(noisy, columns)] *= SLOWDOWN
        eligible = ~np.isnan(service) & ~np.isnan(known[..., 0]) & ~np.isnan(true[..., 0])
        failing = np.zeros(service.shape)
        broken = -1
        if setting.noise == "broken":
            broken = [arm.name for arm in ARMS].index(BROKEN[seed % len(BROKEN)])
            failing[(place >= BROKEN_SPAN[0]) & (place < BROKEN_SPAN[1]), broken] = 1.0
        best = np.nanmin(np.where(eligible, _cost(true), np.nan), 1)
        rate_per_s = setting.utilisation * self._cores / float(np.nanmin(true[..., 0], 1).mean())
        regime = Regime(setting.name, len(self.programs), rate_per_s, rho=RHO, contention=1.0 / self._cores)
        workload = Workload(
            regime=regime,
            seed=seed,
            arrivals_s=arrivals(chance, np.full(requests, rate_per_s)),
            families=tuple(self._studies[cell][0] for cell in cells),
            snippets=cells,
            eligible=eligible,
            service_s=np.nan_to_num(service),
            mean_s=np.nan_to_num(true[..., 0]),
            std_s=np.nan_to_num(true[..., 1]),
            compile_s=np.zeros(service.shape),
            failure_chance=failing,
            fails=failing > 0.0,
            hangs=chance.random(service.shape) < 0.0,
            timeout_s=np.array([self._studies[cell][2] for cell in cells]),
            slo_s=best * chance.choice(_SLO_TIMES, requests),
            critical=chance.random(requests) < _CRITICAL,
            features=np.array([self._studies[cell][1] for cell in cells]),
            broken=broken,
            arms=ARMS,
            pools=tuple((runtime, self._instances) for runtime in RUNTIMES),
            pool_of=tuple(RUNTIMES.index(arm.runtime) for arm in ARMS),
            known_mean_s=np.nan_to_num(known[..., 0]),
            known_std_s=np.nan_to_num(known[..., 1]),
        )
        names = [self._cells[cell] for cell in cells]
        return Trace(workload, tuple(name for name, _ in names), tuple(size for _, size in names))

    def _arrange(self, chance: np.random.Generator, requests: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Draw which task each request is."""
        popularity = chance.permutation(1.0 / np.arange(1, len(self.programs) + 1) ** _ZIPF)
        weights, training = [], []
        popular = {program.name: weight for program, weight in zip(self.programs, popularity, strict=True)}
        for name, size in self._cells:
            order = size_order(PROGRAMS[name])
            weights.append(popular[name] * order.count(size) / len(order))
            training.append(PROGRAMS[name].family not in HELD_OUT)
        everything = np.array(weights)
        trained = np.where(training, everything, 0.0)
        first = int(TRAINING * requests)
        cells = np.arange(len(weights))
        return np.concatenate(
            (
                chance.choice(cells, first, p=trained / trained.sum()),
                chance.choice(cells, requests - first, p=everything / everything.sum()),
            )
        )


def slowed_runtime(seed: int) -> str:
    """Return which runtime is slowed in a trace of a seed."""
    return RUNTIMES[seed % len(RUNTIMES)]


def _cost(moments: Floats) -> Floats:
    """Return mean plus weighed deviation, of the last axis."""
    cost: Floats = moments[..., 0] + RHO * moments[..., 1]
    return cost


def _samples(cell: tuple[str, int], knowledge: Knowledge) -> dict[int, tuple[float, ...]]:
    """Return the samples of a cell by the place of the arm."""
    keys = {place: (*cell, arm.name) for place, arm in enumerate(ARMS)}
    return {place: knowledge.samples[key] for place, key in keys.items() if key in knowledge.samples}


def _table(cells: list[tuple[str, int]], half: Mapping[tuple[str, int, str], Moments]) -> Floats:
    """Return means and deviations by cell and arm; NaN where an arm does not take it."""
    table = np.full((len(cells), len(ARMS), 2), np.nan)
    for row, (name, size) in enumerate(cells):
        for column, arm in enumerate(ARMS):
            if (moments := half.get((name, size, arm.name))) is not None:
                table[row, column] = moments.mean_s, moments.std_s
    return table


@cache
def study(program: Program, size: int) -> tuple[str, tuple[float, ...], float]:
    """Return the family, the features and the timeout of a task, as a handle finds them."""
    task: Task = program.task(program.sizes[size])
    asked = int(asked_by(task.inputs))
    features = features_of(task.language, task.code, len(pack(task.inputs)), asked)
    return family_of(task.language, task.code, asked), features, task.permissions.timeout_s
