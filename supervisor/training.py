"""Fits the scheduler's prior on the journal of past executions, and measures whether it is worth having.

Two ways to hold executions back say two things: whole families (does it know
code that nobody has run?) and the latest fifth (does what it learned still
hold?). The kind of model is chosen inside what was not held back, so that the
figures reported were not chosen by.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final, TypeAlias

from runvisor.policies.errors import TooFewOutcomes
from runvisor.policies.scheduling.base import Ending, Outcome
from runvisor.policies.scheduling.beliefs import ArmBelief
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.prior import TrainedPrior
from runvisor.supervisor.prior_fit import MIN_ARM_RUNS, Run, best_kind, dealt, fit

MIN_RUNS: Final = 200
MIN_FAMILIES: Final = 10
MIN_GAIN: Final = 0.02
"""How much less error than every rival earns a place: less is chance."""
_RUNS_OF_A_FAMILY: Final = 20
"""Runs of a family on an arm that count, spread over time, so that one busy family does not decide."""
_MOST_RUNS: Final = 8_000
"""The latest that count at all: a fit takes seconds, not minutes."""
_HELD_OUT: Final = 5
"""One family in so many is held back, and the latest of so many parts of the time."""
_NO_LIMIT_S: Final = 1e6
_LEAST_LOG_S: Final = math.log(1e-6)

Expect: TypeAlias = Callable[[str, str, tuple[float, ...]], float | None]
"""What is expected of (arm, family, features): the logarithm of service seconds, None if nothing is."""


@dataclass(frozen=True, slots=True)
class Error:
    """How far predictions lay from what happened."""

    rmse: float
    """Root of the mean squared error of the logarithm of seconds."""
    ratio: float
    """Median of the larger over the smaller of predicted and real: 1 is perfect, 2 is off by a factor of 2."""
    runs: int
    """Executions that it was measured on."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same held-out executions predicted in several ways."""

    held_out: str
    """``new families`` or ``the latest``."""
    errors: Mapping[str, Error]
    """By who predicted: `TRAINED`, or one of its rivals."""

    @property
    def gain(self) -> float:
        """How much less the trained model's RMSE is than the best rival's, as a part of that."""
        rival = min(error.rmse for who, error in self.errors.items() if who != TRAINED)
        return 1.0 - self.errors[TRAINED].rmse / rival if rival > 0 else 0.0


TRAINED: Final = "trained"
PRESENT: Final = "present prior"
ARM_MEAN: Final = "mean of the arm"
SCHEDULER: Final = "scheduler itself"
_NEW_FAMILIES: Final = "new families"


@dataclass(frozen=True, slots=True)
class Training:
    """What a training came to."""

    prior: TrainedPrior
    """Fitted on all executions."""
    model: str
    """Which kind of model did best inside what was left when families were held back."""
    comparisons: tuple[Comparison, ...]
    runs: int
    """Executions that counted."""
    families: int
    left_out: Mapping[str, int]
    """Executions that did not, by reason."""

    @property
    def is_better(self) -> bool:
        """Whether it beats every rival by `MIN_GAIN` on both kinds of held-out executions."""
        return all(comparison.gain >= MIN_GAIN for comparison in self.comparisons)


def train(outcomes: Iterable[Outcome], present: Expect, *, trained_until: float = 0.0) -> Training:
    """Fit a prior and measure it.

    Args:
        outcomes: Past executions; failures and cold starts are left out.
        present: What is expected without it.
        trained_until: Up to when that was itself trained: on executions before, it is no fair rival.

    Returns:
        The prior with its figures; whether to use it is `Training.is_better`.

    Raises:
        TooFewOutcomes: There are not `MIN_RUNS` runs of `MIN_FAMILIES` families, or not enough later
            than ``trained_until``; says how many are missing.
    """
    runs, left_out = _usable(outcomes)
    _require_enough(runs, trained_until)
    cuts = sorted(run.at for run in runs)
    latest = max(cuts[-max(1, len(cuts) // _HELD_OUT)], math.nextafter(trained_until, math.inf))
    hands = dealt(runs, _HELD_OUT)
    splits = {
        _NEW_FAMILIES: [hands[run.family] == 0 for run in runs],
        "the latest": [run.at >= latest for run in runs],
    }
    comparisons, kinds = [], []
    for name, held in splits.items():
        known = [run for run, is_held in zip(runs, held, strict=True) if not is_held]
        asked = [run for run, is_held in zip(runs, held, strict=True) if is_held and not run.was_cut]
        if len(known) < MIN_RUNS // 2 or len(asked) < MIN_ARM_RUNS:
            raise _too_few(runs, trained_until, [f"{MIN_RUNS} more runs that end by themselves"])
        kinds.append(best_kind(known))
        rivals = {TRAINED: fit(known, kinds[-1]).log_mean_s, ARM_MEAN: _arm_means(known)}
        if name == _NEW_FAMILIES:
            rivals[SCHEDULER] = _scheduler_taught(known)
        if name != _NEW_FAMILIES or not trained_until:
            rivals[PRESENT] = present
        comparisons.append(Comparison(name, {who: _error(expect, asked, known) for who, expect in rivals.items()}))
    families = len({run.family for run in runs})
    return Training(fit(runs, kinds[0]), kinds[0], tuple(comparisons), len(runs), families, left_out)


def _usable(outcomes: Iterable[Outcome]) -> tuple[list[Run], dict[str, int]]:
    """Return the runs that say something of service time, in order of time."""
    left_out: Counter[str] = Counter()
    samples = []
    for outcome in sorted(outcomes, key=lambda outcome: outcome.at):
        if outcome.ending is Ending.FAILED:
            left_out["the runtime failed"] += 1
        elif outcome.cold:
            left_out["cold start"] += 1
        else:
            samples.append(outcome)
    if samples:  # of one version of the features: the one in use last
        width = len(samples[-1].features)
        left_out["features of another version"] += sum(len(each.features) != width for each in samples)
        samples = [each for each in samples if len(each.features) == width]
    cells: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for each in samples:
        was_cut = each.ending is Ending.TIMED_OUT
        service_s = max(each.service_s, each.timeout_s) if was_cut else each.service_s
        log_s = max(_LEAST_LOG_S, math.log(service_s)) if service_s > 0 else _LEAST_LOG_S
        cells[each.arm, each.family].append(Run(each.arm, each.family, each.features, log_s, each.at, was_cut))
    runs = [run for cell in cells.values() for run in cell[:: -(-len(cell) // _RUNS_OF_A_FAMILY)]]
    left_out["more runs of a busy family"] = len(samples) - len(runs)
    rare = {arm for arm, count in Counter(run.arm for run in runs).items() if count < MIN_ARM_RUNS}
    left_out["arm with few runs"] = sum(run.arm in rare for run in runs)
    runs = sorted((run for run in runs if run.arm not in rare), key=lambda run: run.at)[-_MOST_RUNS:]
    return runs, {reason: count for reason, count in left_out.items() if count}


def _require_enough(runs: Sequence[Run], trained_until: float) -> None:
    families = {run.family for run in runs}
    missing = []
    if len(runs) < MIN_RUNS:
        missing.append(f"{MIN_RUNS - len(runs)} more runs")
    if len(families) < MIN_FAMILIES:
        missing.append(f"{MIN_FAMILIES - len(families)} more kinds of code")
    fresh = sum(run.at > trained_until for run in runs)
    if not missing and fresh < MIN_RUNS // _HELD_OUT:
        missing.append(f"{MIN_RUNS // _HELD_OUT - fresh} more runs since the present prior was trained")
    if missing:
        raise _too_few(runs, trained_until, missing)


def _too_few(runs: Sequence[Run], trained_until: float, missing: Sequence[str]) -> TooFewOutcomes:
    families = len({run.family for run in runs})
    return TooFewOutcomes(
        f"the journal holds {len(runs)} usable runs of {families} kinds of code, too few to learn from",
        "journal",
        f"run {' and '.join(missing)}; every execution under a supervisor adds one",
        {
            "runs": len(runs),
            "families": families,
            "runs_needed": MIN_RUNS,
            "families_needed": MIN_FAMILIES,
            "runs_since_trained": sum(run.at > trained_until for run in runs),
        },
    )


def _arm_means(runs: Sequence[Run]) -> Expect:
    by_arm: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        by_arm[run.arm].append(run.log_s)
    means = {arm: fmean(values) for arm, values in by_arm.items()}
    return lambda arm, *_: means.get(arm)


def _scheduler_taught(runs: Sequence[Run]) -> Expect:
    """Return what a scheduler without a prior expects of new families when it has learned the same runs."""
    scheduler = HierarchicalScheduler()
    for run in runs:
        service_s = math.exp(run.log_s)
        ending, timeout_s = (Ending.TIMED_OUT, service_s) if run.was_cut else (Ending.RAN, _NO_LIMIT_S)
        scheduler.update(Outcome(run.arm, run.family, ending, service_s, 0.0, timeout_s, run.at, features=run.features))
    state = scheduler.to_wire()
    base = float(state["base"][0])
    arms = {name: ArmBelief.from_wire(arm, scheduler.tuning) for name, arm in state["arms"].items()}

    def expect(arm: str, _family: str, features: tuple[float, ...]) -> float | None:
        belief = arms.get(arm)
        if belief is None:
            return None
        return base + belief.level.mean + belief.drift.mean + belief.weights.sum(features)

    return expect


def _error(expect: Expect, asked: Sequence[Run], known: Sequence[Run]) -> Error:
    """Measure predictions; where there is none, the mean over all arms stands in."""
    fallback = fmean(run.log_s for run in known)
    off = []
    for run in asked:
        guess = expect(run.arm, run.family, run.features)
        off.append(abs((fallback if guess is None else guess) - run.log_s))
    return Error(math.sqrt(sum(each * each for each in off) / len(off)), math.exp(median(off)), len(off))
