"""What is measured of a replay.

Over the requests that are scored and have a choice:

* *relative regret*: what the chosen arms cost beyond the oracle's, of what the
  oracle's cost, in the state of the pools that this very policy brought about.
  Cost is ``wait + mean + deviation + P(failure) * timeout``, its mean and
  deviation from the half of the runs that the oracle does not know;
* *contested cost*: mean cost of the requests for programs of which no single
  arm is always best. What of the gap between the best static rule and the
  oracle a policy closes is made of it;
* *time to adapt*: requests from the beginning of a disturbance, among those
  that it could hit, until fewer than a tenth of 40 in a row go to what is
  disturbed although that costs clearly more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from benchmarks.scheduler.comparison import Interval, interval
from benchmarks.scheduler.real.traces import NOISE_SPAN, Setting, Trace, slowed_runtime
from benchmarks.scheduler.real.workload import HELD_OUT, PROGRAMS
from benchmarks.scheduler.regimes import BROKEN_SPAN
from benchmarks.scheduler.simulator import Run
from benchmarks.scheduler.workload import Flags

Figures = dict[str, float]
_IN_A_ROW: Final = 40
_BAD_SHARE: Final = 0.1
_CLEARLY: Final = 1.3


def over_seeds(values: Sequence[float]) -> Interval:
    """Return the mean of one value per seed with its interval; values that are not there (NaN) are left out.

    Example:
        >>> over_seeds([1.0, 2.0, 3.0, float("nan")]).mean
        2.0
    """
    there = [value for value in values if not math.isnan(value)]
    return interval(there) if there else Interval(math.nan, math.nan, math.nan)


def figures_of(trace: Trace, run: Run, contested: frozenset[str], setting: Setting) -> Figures:
    """Return the figures of a run by name; times in milliseconds, shares from 0 to 1."""
    workload, scored = trace.workload, trace.scored
    choice = scored & (workload.eligible.sum(1) > 1)
    open_ = choice & _are(trace, lambda name: name in contested)
    missed, latency_ms = run.latency_s > workload.slo_s, run.latency_s * 1e3
    figures = {
        "relative_regret": _regret(run, choice),
        "held_out_regret": _regret(run, choice & _are(trace, lambda name: PROGRAMS[name].family in HELD_OUT)),
        "training_regret": _regret(run, ~scored & (workload.eligible.sum(1) > 1)),
        "contested_cost_ms": _mean(run.cost_s[open_]) * 1e3,
        "cost_ms": _mean(run.cost_s[choice]) * 1e3,
        "best": _mean((run.arm == run.best)[choice]),
        "p50_ms": float(np.percentile(latency_ms[scored], 50)),
        "p99_ms": float(np.percentile(latency_ms[scored], 99)),
        "slo_missed": _mean(missed[scored]),
        "critical_slo_missed": _mean(missed[scored & workload.critical]),
    }
    if setting.noise == "broken":
        within = _within(len(scored), BROKEN_SPAN)
        figures["lost"] = float((choice & within & run.failed & (run.arm == workload.broken)).sum())
        figures["adapted_after"] = _adapted(run, within, {workload.broken})
    if setting.noise == "slow":
        runtime = slowed_runtime(workload.seed)
        hit = {place for place, arm in enumerate(workload.arms) if arm.runtime == runtime}
        figures["adapted_after"] = _adapted(run, _within(len(scored), NOISE_SPAN), hit)
    return figures


def share_closed(cost: float, static: float, oracle: float) -> float:
    """Return how much of the gap between a static rule and the oracle a policy closes: 1 all, 0 nothing.

    Example:
        >>> share_closed(cost=12.0, static=20.0, oracle=10.0)
        0.8
    """
    return (static - cost) / (static - oracle) if static > oracle else float("nan")


def _adapted(run: Run, within: Flags, hit: set[int]) -> float:
    could = np.flatnonzero(within & run.workload.eligible[:, sorted(hit)].any(1) & (run.workload.eligible.sum(1) > 1))
    if len(could) < _IN_A_ROW:
        return float("nan")
    bad = np.isin(run.arm[could], sorted(hit)) & (run.cost_s[could] > _CLEARLY * run.least_s[could])
    share = np.convolve(bad.astype(float), np.full(_IN_A_ROW, 1.0 / _IN_A_ROW), "valid")
    below = np.flatnonzero(share < _BAD_SHARE)
    return float(below[0]) if len(below) else float(len(could))


def _are(trace: Trace, is_one: Callable[[str], bool]) -> Flags:
    return np.array([is_one(name) for name in trace.programs], np.bool_)


def _within(requests: int, span: tuple[float, float]) -> Flags:
    place = np.arange(requests) / requests
    return (place >= span[0]) & (place < span[1])


def _regret(run: Run, which: Flags) -> float:
    cost, least = run.cost_s[which], run.least_s[which]
    return float((cost - least).sum() / least.sum()) if len(least) else float("nan")


def _mean(values: Flags | np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def summary(rows: Mapping[str, Sequence[Figures]]) -> dict[str, dict[str, Interval]]:
    """Return each policy's figures with intervals over the seeds."""
    return {
        policy: {name: over_seeds([figures[name] for figures in found]) for name in found[0]}
        for policy, found in rows.items()
    }
