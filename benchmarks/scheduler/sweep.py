"""A fair tuning for the baselines: a small grid for each, on seeds that the comparison never sees.

Run it with ``python -m benchmarks.scheduler.sweep``. The best of a grid, by the mean over all regimes of
the relative regret, is what the classes have as defaults; our own policy is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.measure import RESULTS, machine
from benchmarks.scheduler.comparison import NICE, PROCESSES
from benchmarks.scheduler.regimes import REGIMES, regime
from benchmarks.scheduler.scores import score
from benchmarks.scheduler.simulator import Selecting, Simulation
from benchmarks.scheduler.workload import draw
from runvisor.policies.scheduling.baselines.epsilon_greedy import EpsilonGreedyScheduler
from runvisor.policies.scheduling.baselines.linear_thompson import LinearThompsonScheduler
from runvisor.policies.scheduling.baselines.mean_variance_thompson import MeanVarianceThompsonScheduler
from runvisor.policies.scheduling.baselines.mv_lcb import MvLcbScheduler
from runvisor.policies.scheduling.baselines.ucb1 import Ucb1Scheduler

SEEDS: Final = (1000,)
REQUESTS: Final = 3000
Tuning = tuple[tuple[str, Any], ...]

MAKERS: Final[Mapping[str, Callable[..., Selecting]]] = {
    each.name: each
    for each in (
        EpsilonGreedyScheduler,
        Ucb1Scheduler,
        MvLcbScheduler,
        MeanVarianceThompsonScheduler,
        LinearThompsonScheduler,
    )
}
GRIDS: Final[Mapping[str, Mapping[str, tuple[Any, ...]]]] = {
    "epsilon-greedy": {"epsilon": (0.02, 0.1), "memory": (100, 1000)},
    "ucb1": {"width": (0.03, 0.1, 0.3), "memory": (100, 1000)},
    "mv-lcb": {"width": (0.003, 0.03), "memory": (100, 1000)},
    "mv-thompson": {"spread": (0.1, 0.3), "memory": (100, 1000)},
    "linear-thompson": {"explore": (0.1, 0.3, 1.0), "keep": (1.0, 0.998)},
}
TEXTBOOK: Final[Mapping[str, Tuning]] = {
    "ucb1": (("width", 1.0), ("memory", 1_000_000), ("sees_queue", False)),
    "mv-lcb": (("width", 1.0), ("memory", 1_000_000), ("deviation", False), ("sees_queue", False)),
    "mv-thompson": (("spread", 1.0), ("memory", 1_000_000), ("deviation", False), ("sees_queue", False)),
}
"""As printed, for the record."""


def regret(job: tuple[str, Tuning, str, int]) -> float:
    """Return the relative regret of a baseline so tuned, in a regime, with a seed."""
    name, tuning, where, seed = job
    policy = MAKERS[name](**dict(tuning))
    return score(Simulation(draw(regime(where), seed, REQUESTS), policy).run())["relative_regret"]


def grid(name: str) -> list[Tuning]:
    """Return every tuning of a baseline's grid, and its printed one."""
    axes = GRIDS[name]
    tunings: list[Tuning] = [tuple(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return tunings + ([TEXTBOOK[name]] if name in TEXTBOOK else [])


def measure(pool: ProcessPoolExecutor, todo: list[tuple[str, Tuning]]) -> dict[tuple[str, Tuning], float]:
    """Return the mean relative regret over regimes and seeds of each."""
    cells = [(each.name, seed) for each in REGIMES for seed in SEEDS]
    work = [(name, tuning, where, seed) for name, tuning in todo for where, seed in cells]
    found = list(track(pool.map(regret, work), total=len(work), description="tuning"))
    return {each: float(np.mean(found[place * len(cells) :][: len(cells)])) for place, each in enumerate(todo)}


def main() -> None:
    """Search, report and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler.sweep", description=__doc__)
    parser.add_argument("--nice", type=int, default=NICE, help="how much to give way to others")
    asked = parser.parse_args()
    with ProcessPoolExecutor(PROCESSES, initializer=os.nice, initargs=(asked.nice,)) as pool:
        found = measure(pool, [(name, tuning) for name in GRIDS for tuning in grid(name)])
        best = {name: min((each for each in found if each[0] == name), key=found.__getitem__) for name in GRIDS}
        blind = [(name, (*tuning, ("sees_queue", False))) for name, tuning in best.values()]
        found |= measure(pool, blind)
    table = Table("policy", "tuning", "mean relative regret")
    for (name, tuning), value in sorted(found.items(), key=lambda item: (item[0][0], item[1])):
        table.add_row(name, ", ".join(f"{key}={setting}" for key, setting in tuning), f"{value:.3f}")
    Console(width=120).print(table)
    rows = [{"policy": name, **dict(tuning), "regret": round(value, 4)} for (name, tuning), value in found.items()]
    document = {
        "question": "how to tune the baselines",
        **machine(),
        "seeds": SEEDS,
        "requests": REQUESTS,
        "rows": rows,
    }
    (RESULTS / "scheduler-baselines-tuning.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
