"""What a choice adds to scores for one task: cold starts, a prior, and objectives that are no sums of times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Context, LatencyPrior, Load
from runvisor.policies.scheduling.forecasts import Row

_TIE: Final = 0.02
"""What a multiple of the bound counts beside the probability of exceeding it: among hopeless arms, the faster one."""
_MOST_MULTIPLE: Final = 5.0


def cold_prices(row: Row, colds: frozenset[str] | None) -> list[float]:
    """Return what a cold start is expected to cost on each arm."""
    if row.colds is None:
        return row.nothing
    if colds is None:
        return [cold_s * share for cold_s, share in row.colds]
    return [cold_s if name in colds else 0.0 for (cold_s, _), name in zip(row.colds, row.names, strict=True)]


def late_chances(
    slo_s: float,
    row: Row,
    context: Context,
    waits_s: Sequence[float] | None,
    times_s: Sequence[float],
    scores: Sequence[float],
) -> list[float]:
    """Return the probability of taking longer than the bound, for scores that are times."""
    chances: list[float] = []
    before_s = cold_prices(row, context.cold)
    for index, behind in enumerate(row.behind):
        left_s = slo_s - before_s[index] - (waits_s[index] if waits_s is not None else 0.0)
        late, failing = 1.0, behind.excess_failure_chance
        if left_s > 0 and times_s[index] > 0:
            late = behind.tail.beyond(math.log(left_s / times_s[index]) / behind.spread)
        tie = _TIE * min(scores[index] / slo_s, _MOST_MULTIPLE)
        chances.append(failing + (1.0 - failing) * late + tie)
    return chances


def shared_out(
    arms: Sequence[Arm], loads: Mapping[str, Load], waits_s: Sequence[float] | None, scores: Sequence[float]
) -> list[float]:
    """Return scores in which a task's own time counts by the number of instances that share the work."""
    shared: list[float] = []
    for index, arm in enumerate(arms):
        load = loads.get(arm.runtime) or loads.get(arm.name)
        instances = max(1, load.idle + load.busy) if load is not None else 1
        wait_s = waits_s[index] if waits_s is not None else 0.0
        shared.append(wait_s + (scores[index] - wait_s) / instances)
    return shared


def with_prior(prior: LatencyPrior, row: Row, context: Context, added: Sequence[float]) -> list[float]:
    """Return what to add to predictions, so that arms without a belief for this family have the prior's."""
    found = list(added)
    for index in row.unseen:
        log_s = prior.log_mean_s(row.names[index], context.family, context.features)
        if log_s is not None:
            found[index] = log_s - row.terms[index].log_s
    return found
