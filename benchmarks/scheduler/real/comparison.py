"""Policies compared on replays: paired by seed, so that all meet the same luck."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.scheduler.comparison import Interval
from benchmarks.scheduler.real.figures import Figures, figures_of, over_seeds, share_closed, summary
from benchmarks.scheduler.real.policies import ORACLE, OURS, RULES, TABLE, make_contenders
from benchmarks.scheduler.real.recording import Recording
from benchmarks.scheduler.real.traces import REQUESTS, SETTINGS, Replays
from benchmarks.scheduler.simulator import Simulation

CLOSED: Final = 0.70
REGRET: Final = 0.25
LOST: Final = 40.0
CONTESTED: Final = 0.40
"""The bars of the issue."""
_replays: Replays | None = None


@dataclass(frozen=True)
class Comparison:
    """All figures: by setting, by policy, one per seed."""

    figures: Mapping[str, Mapping[str, Sequence[Figures]]]
    programs: int
    contested: tuple[str, ...]

    def summary(self, setting: str) -> dict[str, dict[str, Interval]]:
        """Return a setting's figures by policy, with intervals."""
        rows = summary(self.figures[setting])
        rule = self.best_rule(setting)
        for policy, found in self.figures[setting].items():
            for name, base in (("closed", rule), ("closed_to_table", TABLE)):
                rows[policy][name] = self._closed(setting, found, base)
            ours = [each["p99_ms"] for each in found]
            theirs = [each["p99_ms"] for each in self.figures[setting][rule]]
            rows[policy]["p99_beyond_rule_ms"] = over_seeds([a - b for a, b in zip(ours, theirs, strict=True)])
        return rows

    def best_rule(self, setting: str) -> str:
        """Return the static rule that costs least on contested programs."""
        found = self.figures[setting]
        return min(RULES, key=lambda rule: sum(each["contested_cost_ms"] for each in found[rule]))

    def bars(self) -> list[tuple[str, str, bool]]:
        """Return each bar, what was measured, and whether it was met."""
        share = len(self.contested) / self.programs
        bars = [(f"no arm always best: >= {CONTESTED:.0%} of the programs", f"{share:.0%}", share >= CONTESTED)]
        for setting in SETTINGS:
            if setting.name not in self.figures:
                continue
            ours = self.summary(setting.name)[OURS]
            regret, closed, lost = ours["relative_regret"], ours["closed"], ours.get("lost")
            later = ours["p99_beyond_rule_ms"]
            if setting.noise != "broken":
                bars.append((f"{setting.name}: regret <= {REGRET}", _text(regret, 3), regret.mean <= REGRET))
                bars.append((f"{setting.name}: gap closed >= {CLOSED:.0%}", _text(closed, 2), closed.mean >= CLOSED))
            # Worse is what lies above the static rule beyond chance.
            bars.append(
                (f"{setting.name}: p99 no worse than {self.best_rule(setting.name)}", _text(later, 1) + " ms",
                 later.low <= 0.0)
            )  # fmt: skip
            if lost is not None:
                bars.append((f"{setting.name}: lost <= {LOST:.0f} requests", _text(lost, 1), lost.mean <= LOST))
        return bars

    def _closed(self, setting: str, found: Sequence[Figures], base: str) -> Interval:
        rows = zip(found, self.figures[setting][base], self.figures[setting][ORACLE], strict=True)
        return over_seeds([share_closed(*(each["contested_cost_ms"] for each in row)) for row in rows])


def compare(
    path: Path,
    *,
    seeds: int,
    requests: int = REQUESTS,
    handles: int = 1,
    settings: Sequence[str] = (),
    policies: Sequence[str] = (),
    told: Callable[[int, int], None],
) -> Comparison:
    """Replay a recording for every setting, policy and seed.

    Args:
        path: The recording.
        seeds: How many.
        requests: In a run.
        handles: Clients, each with a snapshot of its own.
        settings: Names of those to run; empty is all.
        policies: Likewise; the rules and the oracle are always there.
        told: Called with how many runs are done, of how many.
    """
    replays = Replays(Recording.load(path))
    names = [each.name for each in SETTINGS if not settings or each.name in settings]
    always = (ORACLE, *RULES, TABLE)
    wanted = [each.name for each in make_contenders(replays) if not policies or each.name in (*policies, *always)]
    jobs = [(name, seed, requests, handles, wanted) for name in names for seed in range(seeds)]
    figures: dict[str, dict[str, list[Figures]]] = {name: {each: [] for each in wanted} for name in names}
    with ProcessPoolExecutor(os.cpu_count(), initializer=_load, initargs=(path,)) as pool:
        for number, (job, found) in enumerate(zip(jobs, pool.map(_compare_one, jobs), strict=True)):
            for policy, row in found.items():
                figures[job[0]][policy].append(row)
            told(number + 1, len(jobs))
    return Comparison(figures, len(replays.programs), tuple(sorted(replays.contested)))


def _load(path: Path) -> None:
    global _replays
    _replays = Replays(Recording.load(path))


def _compare_one(job: tuple[str, int, int, int, list[str]]) -> dict[str, Figures]:
    """Run all policies on one trace."""
    name, seed, requests, handles, wanted = job
    assert _replays is not None
    setting = next(each for each in SETTINGS if each.name == name)
    trace = _replays.draw(setting, seed, requests)
    found = {}
    for each in make_contenders(_replays):
        if each.name in wanted:
            policy = None if each.make is None else each.make()
            run = Simulation(trace.workload, policy, handles=handles, objective=each.objective).run()
            found[each.name] = figures_of(trace, run, _replays.contested, setting)
    return found


def _text(interval: Interval, digits: int) -> str:
    return f"{interval.mean:.{digits}f} ± {interval.half:.{digits}f}"
