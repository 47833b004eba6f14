"""What is measured of a run.

**Relative regret** is the bar's figure. For each request with a choice (two
eligible arms or more), the true cost of the chosen arm and of the best one are
compared in the state in which this very policy has put the pools:

    cost = min(wait + cold + mean + rho * std, timeout) + P(failure) * timeout
    relative regret = sum(cost of chosen - cost of best) / sum(cost of best)

Mean, deviation and chance are those that the request's luck was drawn from, so
luck itself is no regret. The oracle's is zero by definition, but it plans no
further than the request at hand: the **total cost** of a run, with the
congestion that its own choices made, is compared apart.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from benchmarks.scheduler.regimes import BROKEN_SPAN
from benchmarks.scheduler.simulator import Run

RIGHT: Final = 1.05
"""A choice is right if it costs at most this many times the least: some arms are as good as equal."""
_HEALED: Final = 0.05
"""Part of a run after an arm has healed that is given to find that out."""


def score(run: Run) -> dict[str, float]:
    """Return the figures of a run by name; times in milliseconds, shares from 0 to 1."""
    workload = run.workload
    choice = workload.eligible.sum(1) > 1
    cost, least, latency = run.cost_s[choice], run.least_s[choice], run.latency_s
    wrong = cost > RIGHT * least
    missed = latency > workload.slo_s
    figures = {
        "relative_regret": float((cost - least).sum() / least.sum()),
        "regret_ms": float((cost - least).mean() * 1e3),
        "right": float(1.0 - wrong.mean()),
        "best": float((run.arm == run.best)[choice].mean()),
        "herded": float((wrong & (cost - run.wait_s[choice] <= RIGHT * least)).mean()),
        "p50_ms": float(np.percentile(latency, 50) * 1e3),
        "p99_ms": float(np.percentile(latency, 99) * 1e3),
        "slo_missed": float(missed.mean()),
        "critical_slo_missed": float(missed[workload.critical].mean()),
        "failed": float(run.failed.mean()),
        "total_cost_ms": float(run.cost_s.mean() * 1e3),
        "mean_latency_ms": float(latency.mean() * 1e3),
    }
    if workload.broken >= 0:
        place = np.arange(len(cost_all := run.cost_s)) / len(cost_all)
        chosen = choice & (run.arm == workload.broken)
        within = (place >= BROKEN_SPAN[0]) & (place < BROKEN_SPAN[1])
        figures["lost_to_broken"] = float((chosen & within & run.failed).sum())
        wanted = choice & (run.best == workload.broken) & (place >= BROKEN_SPAN[1] + _HEALED)
        figures["returned"] = float((chosen & wanted).sum() / max(1, wanted.sum()))
    return figures
