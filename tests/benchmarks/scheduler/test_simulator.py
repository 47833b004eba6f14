"""The simulator: that what policies are judged by is itself right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scheduler.machine import ARMS
from benchmarks.scheduler.regimes import REGIMES, Regime, regime
from benchmarks.scheduler.scores import score
from benchmarks.scheduler.simulator import Pool, Run, Simulation
from benchmarks.scheduler.workload import Workload, draw
from runvisor.actors.runtime import Load
from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Choice, Context, Outcome
from runvisor.policies.scheduling.baselines.least_loaded import LeastLoadedScheduler
from runvisor.policies.scheduling.baselines.preference import PreferenceScheduler

WORKERS = [each.workers for each in ARMS]


class Blind:
    """Takes an arm by the draws."""

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        return Choice(arms[min(range(len(arms)), key=draws.__getitem__)].name, False, ())


class Attentive(Blind):
    """Remembers what it was told, and that it lies in the past."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        assert all(outcome.at <= now for outcome in self.outcomes)
        return super().select(context, arms, now, draws)

    def update(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def queue(workers: int, rate_per_s: float, mean_s: float, requests: int) -> Workload:
    """Return an M/M/c queue: one arm, exponential gaps and services, no timeouts, no contention."""
    arm = WORKERS.index(workers)
    random = np.random.default_rng(5)
    plain = draw(Regime("queue", 3, rate_per_s, walk=0.0, contention=0.0), 0, requests)
    shape = plain.service_s.shape
    eligible = np.zeros(shape, np.bool_)
    eligible[:, arm] = True
    return replace(
        plain,
        arrivals_s=np.cumsum(random.exponential(1.0 / rate_per_s, requests)),
        eligible=eligible,
        service_s=random.exponential(mean_s, shape),
        mean_s=np.full(shape, mean_s),
        std_s=np.full(shape, mean_s),
        compile_s=np.zeros(shape),
        fails=np.zeros(shape, np.bool_),
        timeout_s=np.full(requests, 1e6),
    )


def erlang_c(workers: int, offered: float) -> float:
    """Return the chance that a customer of M/M/c waits (A. K. Erlang, 1917)."""
    last = offered**workers / math.factorial(workers) * workers / (workers - offered)
    return last / (sum(offered**n / math.factorial(n) for n in range(workers)) + last)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "utilisation"), [(2, 0.7), (4, 0.8)])
def test_waits_are_those_of_an_mmc_queue(workers: int, utilisation: float) -> None:
    mean_s = 0.01
    rate_per_s = utilisation * workers / mean_s
    run = Simulation(queue(workers, rate_per_s, mean_s, 20_000), PreferenceScheduler()).run()
    waiting = erlang_c(workers, utilisation * workers)
    assert (run.wait_s > 0).mean() == pytest.approx(waiting, rel=0.05)
    assert run.wait_s.mean() == pytest.approx(waiting * mean_s / (workers * (1 - utilisation)), rel=0.1)
    busy = run.busy_s.sum() / workers / run.workload.arrivals_s[-1]
    assert busy == pytest.approx(utilisation, rel=0.03)  # the utilisation law


def test_the_load_that_a_pool_tells_obeys_littles_law() -> None:
    random = np.random.default_rng(1)
    pool, now, waits, seen = Pool(2), 0.0, 0.0, 0
    ends: list[float] = []
    for _ in range(20_000):
        now += random.exponential(1.0)
        while ends and min(ends) <= now:
            ends.remove(min(ends))
            pool.release()
        seen += pool.load(now).waiting  # Poisson arrivals see time averages
        waits += pool.wait_s(now)
        hold_s = random.exponential(1.5)
        ends.append(pool.admit(now, hold_s) + hold_s)
    assert seen / 20_000 == pytest.approx(waits / now, rel=0.08)


@given(
    st.sampled_from(REGIMES), st.integers(0, 50), st.integers(1, 120), st.sampled_from([1, 4, 16]), st.integers(0, 2)
)
@settings(max_examples=25, deadline=None)
def test_each_request_is_answered_once(regime: Regime, seed: int, requests: int, handles: int, which: int) -> None:
    policy = (Attentive(), LeastLoadedScheduler(), None)[which]
    run = Simulation(draw(regime, seed, requests), policy, handles=handles).run()
    assert (run.answered == 1).all()
    assert run.workload.eligible[np.arange(requests), run.arm].all()
    assert (run.cost_s >= run.least_s).all()
    assert (run.latency_s <= np.where(run.failed, 1.0, 2.0) * run.workload.timeout_s + 1e-9).all()


@pytest.mark.parametrize("name", ["busy", "broken-arm"])
def test_the_oracle_regrets_nothing_and_chance_does(name: str) -> None:
    workload = draw(regime(name), 3, 2000)
    ideal, blind = Simulation(workload, None).run(), Simulation(workload, Blind()).run()
    assert score(ideal)["relative_regret"] == 0.0
    assert score(ideal)["right"] == 1.0
    assert score(blind)["relative_regret"] > 0.3


def same(one: Run, other: Run) -> bool:
    return bool((one.arm == other.arm).all() and (one.latency_s == other.latency_s).all())


def test_a_run_is_the_same_again_and_another_with_another_seed() -> None:
    runs = [Simulation(draw(REGIMES[0], seed, 500), Blind()).run() for seed in (7, 7, 8)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


KNOWN: list[tuple[float, int]] = []


class Learner(Attentive):
    """Notes when it chose and how much it had been told by then."""

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        KNOWN.append((now, len(self.outcomes)))
        return super().select(context, arms, now, draws)


def test_a_handle_knows_only_its_last_snapshot_and_learns_from_all() -> None:
    workload = draw(REGIMES[0], 0, 400)
    KNOWN.clear()
    Simulation(workload, Learner(), snapshot_every_s=0.5).run()
    counts = {now // 0.5: count for now, count in KNOWN}
    assert all(count == counts[now // 0.5] for now, count in KNOWN)
    assert counts[0.0] == 0
    assert len(set(counts.values())) > 2


SEEN: list[Load] = []


class Watching(PreferenceScheduler):
    """Notes the loads that it is shown."""

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        load = context.loads[arms[0].name]
        assert isinstance(load, Load)
        SEEN.append(load)
        return super().select(context, arms, now, draws)


@pytest.mark.parametrize(("handles", "told"), [(200, False), (1, True)])
def test_a_pools_load_reaches_only_the_handle_that_it_answers(handles: int, told: bool) -> None:
    SEEN.clear()
    Simulation(queue(2, 1000.0, 0.1, 200), Watching(), handles=handles).run()  # far more than it can serve
    assert any(load.waiting > 0 for load in SEEN) is told


def test_what_would_wait_too_long_gives_up_and_teaches_nothing() -> None:
    workload = replace(queue(2, 1000.0, 0.1, 200), timeout_s=np.full(200, 0.5))
    policy = Attentive()
    run = Simulation(workload, policy).run()
    gave_up = run.wait_s >= 0.5
    assert 0 < gave_up.sum() < 200
    assert (run.latency_s[gave_up] == 0.5).all()
    assert all(outcome.wait_s < 0.5 for outcome in policy.outcomes)


def test_only_the_first_run_of_a_snippet_on_an_arm_compiles() -> None:
    workload = draw(REGIMES[0], 2, 1000)
    policy = Attentive()
    run = Simulation(workload, policy).run()
    served = {(int(workload.snippets[place]), int(run.arm[place])) for place in range(1000)}
    assert sum(outcome.cold for outcome in policy.outcomes) <= len(served) < 1000
