"""Workloads: that the luck which is drawn has the moments that the oracle believes in."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scheduler.machine import ARMS
from benchmarks.scheduler.regimes import BROKEN_SPAN, REGIMES, Regime, regime
from benchmarks.scheduler.workload import draw


@pytest.mark.parametrize("each", REGIMES, ids=lambda each: each.name)
def test_requests_come_at_the_rate_asked_for_and_can_be_served(each: Regime) -> None:
    workload = draw(each, 1)
    spike = 1.0 - 0.1 * (1.0 - 1.0 / 2.2) if any(event.kind == "load" for event in each.disturbances) else 1.0
    assert workload.arrivals_s[-1] == pytest.approx(len(workload.arrivals_s) / each.rate_per_s * spike, rel=0.08)
    assert (np.diff(workload.arrivals_s) >= 0).all()
    assert workload.eligible.any(1).all()
    assert len(set(workload.families)) <= each.families


def test_service_times_have_the_mean_and_the_deviation_that_the_oracle_believes_in() -> None:
    workload = draw(regime("busy"), 2, 40_000)
    ratio = workload.service_s / workload.mean_s
    assert ratio.mean(0) == pytest.approx(np.ones(len(ARMS)), rel=0.05)
    believed = np.sqrt((workload.std_s / workload.mean_s) ** 2).mean(0)
    assert np.sqrt(((ratio - 1.0) ** 2).mean(0)) == pytest.approx(believed, rel=0.25)


def test_failures_come_as_often_as_the_oracle_believes() -> None:
    workload = draw(regime("broken-arm"), 0)
    start, end = (int(place * 8000) for place in BROKEN_SPAN)
    assert workload.fails[start:end, workload.broken].all()
    assert workload.fails.mean() == pytest.approx(workload.failure_chance.mean(), rel=0.02)
    assert workload.fails[end:, workload.broken].mean() < 0.02


def test_which_arm_breaks_and_how_badly_differs_between_seeds() -> None:
    broken = [draw(regime("broken-arm"), seed, 100) for seed in range(8)]
    assert len({workload.broken for workload in broken}) == 4
    assert {round(float(workload.failure_chance.max()), 1) for workload in broken} == {0.5, 1.0}


def test_with_equal_means_arms_differ_in_variance_alone() -> None:
    workload = draw(regime("equal-mean"), 4, 500)
    assert np.ptp(workload.mean_s, axis=1) == pytest.approx(np.zeros(500), abs=1e-12)
    assert not workload.compile_s.any()
    assert np.ptp(workload.failure_chance) == 0.0
    assert (workload.std_s.max(1) > 2.0 * workload.std_s.min(1)).all()


def test_code_that_was_seen_comes_back_and_new_code_keeps_arriving() -> None:
    workload = draw(regime("light"), 5)
    first = np.unique(workload.snippets, return_index=True)[1]
    assert 0.05 < len(first) / 8000 < 0.4
    assert first.max() > 7500
