"""Which bars were met: read off the figures, decided before they were known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.scheduler.comparison import Comparison
from benchmarks.scheduler.contenders import STATIC

MOST_REGRET: Final = 0.12
LEAST_RIGHT: Final = 0.80
MOST_LOST: Final = 40.0
MOST_HERDING: Final = 1.10
"""Total cost and p99 with many handles, over those with one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bar."""

    bar: str
    met: bool
    figure: str


def verdicts(
    comparison: Comparison, regimes: Sequence[str], ours: str, baselines: Sequence[str], handles: Sequence[int]
) -> list[Verdict]:
    """Judge one contender.

    Args:
        comparison: The figures.
        regimes: Names of the regimes that were run.
        ours: The contender that is judged.
        baselines: Those that it is to beat.
        handles: Numbers of handles that were tried in the first regime.
    """
    found: list[Verdict] = []
    for regime in regimes:
        mine = comparison.interval((regime, 1, ours), "relative_regret")
        text = f"{mine.mean:.3f} +- {mine.half:.3f}"
        found.append(Verdict(f"{regime}: relative regret <= {MOST_REGRET}", mine.mean <= MOST_REGRET, text))
        theirs = {name: comparison.interval((regime, 1, name), "relative_regret") for name in baselines}
        nearest = min(theirs, key=lambda name: theirs[name].mean)
        met = all(mine.high < each.low for each in theirs.values())
        text = f"nearest is {nearest} with {theirs[nearest].mean:.3f} +- {theirs[nearest].half:.3f}"
        found.append(Verdict(f"{regime}: better than every baseline outside the intervals", met, text))
        gap = comparison.advantage(regime, STATIC.name, ours, "p99_ms")
        found.append(
            Verdict(f"{regime}: p99 no worse than the static rule's", gap.mean <= 0, _difference(gap.mean, gap.half))
        )
    if "equal-mean" in regimes:
        right = comparison.interval(("equal-mean", 1, ours), "right")
        text = f"{right.mean:.1%} +- {right.half:.1%}"
        found.append(Verdict(f"equal-mean: chosen right >= {LEAST_RIGHT:.0%}", right.mean >= LEAST_RIGHT, text))
    if "broken-arm" in regimes:
        lost = comparison.interval(("broken-arm", 1, ours), "lost_to_broken")
        text = f"{lost.mean:.1f} +- {lost.half:.1f}, at most {lost.most:.0f}"
        found.append(Verdict(f"broken-arm: requests lost <= {MOST_LOST:.0f}", lost.mean <= MOST_LOST, text))
    for number in handles:
        if number > 1:
            found.append(_herding(comparison, regimes[0], ours, number))
    return found


def _herding(comparison: Comparison, regime: str, ours: str, handles: int) -> Verdict:
    ratios = {}
    for figure in ("total_cost_ms", "p99_ms"):
        many, one = (comparison.interval((regime, number, ours), figure).mean for number in (handles, 1))
        ratios[figure] = many / one
    text = f"total cost {ratios['total_cost_ms']:.3f}, p99 {ratios['p99_ms']:.3f} of those with one handle"
    met = max(ratios.values()) <= MOST_HERDING
    return Verdict(f"{regime}: no herding of {handles} handles (both <= {MOST_HERDING})", met, text)


def _difference(mean_ms: float, half_ms: float) -> str:
    return f"{mean_ms:+.1f} +- {half_ms:.1f} ms against it"
