"""How far from an oracle are the scheduler's choices, and those of what people use instead?

Run it with ``python -m benchmarks.scheduler.simulate``; ``--quick`` takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress

from benchmarks.measure import RESULTS, machine
from benchmarks.scheduler.comparison import NICE, PROCESSES, Comparison, compare, jobs
from benchmarks.scheduler.contenders import ABLATIONS, BASELINES, CONTENDERS, HERDING, OURS
from benchmarks.scheduler.plots import draw_herding, draw_regrets
from benchmarks.scheduler.regimes import REGIMES, REQUESTS
from benchmarks.scheduler.tables import herding_table, regime_table, verdict_table
from benchmarks.scheduler.verdicts import verdicts

SEEDS: Final = 20
HANDLES: Final = (1, 4, 16)
QUICK_SEEDS: Final = 2
QUICK_REQUESTS: Final = 2000
_NAME: Final = "scheduler-simulation"


def document(comparison: Comparison) -> dict[str, Any]:
    """Return all figures as plain data."""
    figures: dict[str, Any] = {}
    for cell in comparison.cells():
        regime, handles, name = cell
        row: dict[str, Any] = {figure: asdict(comparison.interval(cell, figure)) for figure in comparison.figures(cell)}
        row["relative_regret_by_seed"] = [round(value, 5) for value in comparison.values(cell, "relative_regret")]
        figures.setdefault(regime, {}).setdefault(f"{handles} handles", {})[name] = row
    return figures


def main(arguments: list[str] | None = None) -> None:
    """Compare, report and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many runs of each regime")
    parser.add_argument("--first-seed", type=int, default=0, help="where they begin; 1000 and on tuned the baselines")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="in a run")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="at once")
    parser.add_argument("--nice", type=int, default=NICE, help="how much to give way to others")
    parser.add_argument("--quick", action="store_true", help="a minute's version; keeps nothing")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON and nothing else")
    asked = parser.parse_args(arguments)
    seeds, requests = (QUICK_SEEDS, QUICK_REQUESTS) if asked.quick else (asked.seeds, asked.requests)
    chosen = range(asked.first_seed, asked.first_seed + seeds)
    names, regimes = [each.name for each in CONTENDERS], [each.name for each in REGIMES]
    todo = jobs(REGIMES, names, seeds=chosen, requests=requests)
    for number in HANDLES[1:]:
        todo += jobs(REGIMES[:1], HERDING, seeds=chosen, requests=requests, handles=number)
    with Progress(console=Console(stderr=True), disable=asked.json) as progress:
        task = progress.add_task("simulating", total=len(todo))
        comparison = compare(todo, processes=asked.processes, nice=asked.nice, done=lambda: progress.advance(task))
    found = verdicts(comparison, regimes, OURS.name, [each.name for each in BASELINES], HANDLES)
    everything = {
        "question": "how far from an oracle are the choices, in simulation",
        **machine(),
        "seeds": [chosen.start, chosen.stop],
        "requests": requests,
        "judged": OURS.name,
        "bars": [asdict(each) for each in found],
        "figures": document(comparison),
    }
    if asked.json:
        print(json.dumps(everything, indent=2))
    else:
        console = Console(width=None if sys.stdout.isatty() else 150)
        for regime in regimes:
            console.print(regime_table(comparison, regime))
        console.print(herding_table(comparison, regimes[0], HERDING, HANDLES))
        console.print(verdict_table(found))
    if not asked.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{_NAME}.json").write_text(json.dumps(everything, indent=2) + "\n")
        ours = [OURS.name, *(each.name for each in ABLATIONS)]
        draw_regrets(comparison, regimes, ours, RESULTS / f"{_NAME}.png")
        draw_herding(comparison, regimes[0], HERDING, HANDLES, RESULTS / f"{_NAME}-handles.png")


if __name__ == "__main__":
    main()
