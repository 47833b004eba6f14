"""Objectives at work: each makes small what it says."""

from __future__ import annotations

import math
import random

import pytest

from runvisor.actors.runtime import Load
from runvisor.policies.scheduling.base import Context
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.scheduling.tails import Tail
from tests.policies.scheduling.helpers import FAMILY, arms, outcome

TWO = arms(2)


@pytest.fixture(scope="module")
def scheduler() -> HierarchicalScheduler:
    """Know a steady arm of about 12 ms, r0, and a wild one of 5 ms that takes 100 ms in one of thirty runs, r1."""
    chance, scheduler = random.Random(1), HierarchicalScheduler()
    for lap in range(3000):
        scheduler.update(outcome(0, chance.lognormvariate(math.log(0.012), 0.1), lap / 50))
        wild_s = 0.1 if chance.random() < 1 / 30 else chance.lognormvariate(math.log(0.005), 0.1)
        scheduler.update(outcome(1, wild_s, lap / 50))
    return scheduler


@pytest.mark.parametrize(
    ("objective", "arm"),
    [
        ("mean", "r1/v"),
        ("mean + 2*std", "r0/v"),
        ("slo 8ms", "r1/v"),
        ("slo 20ms", "r0/v"),
        ("cvar 0.95", "r0/v"),
        ("cvar 0.05", "r1/v"),
        ("throughput", "r1/v"),
        ("cost", "r1/v"),
        ("cost r0=1 r1=3", "r0/v"),
        ("cost r0/v=1 *=3", "r0/v"),
    ],
)
def test_an_objective_decides(scheduler: HierarchicalScheduler, objective: str, arm: str) -> None:
    choice = scheduler.select(Context(FAMILY, 5.0, objective=Objective.parse(objective)), TWO, 60.0, ())
    assert choice.arm == arm
    assert choice.objective == Objective.parse(objective).words


def test_the_tail_is_learned_and_not_assumed(scheduler: HierarchicalScheduler) -> None:
    steady, wild = scheduler.select(Context(FAMILY, 5.0), TWO, 60.0, ()).candidates
    assert steady.p95_s == pytest.approx(0.012 * math.exp(0.1645), rel=0.15)
    assert wild.p95_s is not None
    assert wild.p95_s < 0.02  # one of thirty is beyond the 95th percentile, where a log-normal tail would not be
    assert wild.std_s == pytest.approx(0.017, rel=0.4)


def test_throughput_counts_how_many_instances_share_the_work() -> None:
    scheduler = HierarchicalScheduler()
    for lap in range(40):
        scheduler.update(outcome(0, 0.010, float(lap)))
        scheduler.update(outcome(1, 0.015, float(lap)))
    loads = {"r0": Load(idle=1), "r1": Load(idle=8)}
    for text, arm in (("mean", "r0/v"), ("throughput", "r1/v")):
        assert scheduler.select(Context(FAMILY, 5.0, loads, objective=Objective.parse(text)), TWO, 40.0, ()).arm == arm


def test_waiting_costs_what_the_table_says() -> None:
    scheduler = HierarchicalScheduler()
    for lap in range(40):
        scheduler.update(outcome(0, 0.010, float(lap)))
        scheduler.update(outcome(1, 0.011, float(lap)))
    loads = {"r0": Load(idle=0, busy=1, waiting=5), "r1": Load(idle=1)}
    for text, arm in (("cost", "r0/v"), ("cost waiting=1", "r1/v")):
        assert scheduler.select(Context(FAMILY, 5.0, loads, objective=Objective.parse(text)), TWO, 40.0, ()).arm == arm


def test_a_cold_start_costs_where_it_is_expected() -> None:
    scheduler = HierarchicalScheduler()
    for lap in range(60):
        scheduler.update(outcome(0, 0.001, float(lap)))
        scheduler.update(outcome(1, 0.003, float(lap)))
    for lap in range(60, 70):
        scheduler.update(outcome(0, 0.501, float(lap), cold=True, cold_s=0.5))
    best = {
        cold: scheduler.select(Context(FAMILY, 5.0, cold=cold), TWO, 70.0, ()).arm
        for cold in (None, frozenset[str](), frozenset({"r0/v"}))
    }
    assert list(best.values()) == ["r1/v", "r0/v", "r1/v"]


def test_what_a_cold_start_takes_is_found_out_where_nobody_measures_it() -> None:
    scheduler = HierarchicalScheduler()
    for lap in range(60):
        scheduler.update(outcome(0, 0.502 if lap % 6 == 0 else 0.002, float(lap), cold=lap % 6 == 0))
    warm = scheduler.select(Context(FAMILY, 5.0, cold=frozenset()), TWO[:1], 60.0, ()).candidates[0]
    cold = scheduler.select(Context(FAMILY, 5.0, cold=frozenset({"r0/v"})), TWO[:1], 60.0, ()).candidates[0]
    assert warm.mean_s == pytest.approx(0.002, rel=0.4)
    assert warm.score_s is not None
    assert cold.score_s is not None
    assert cold.score_s - warm.score_s == pytest.approx(0.5, rel=0.1)


def test_a_batch_spreads_where_single_choices_would_herd() -> None:
    scheduler = HierarchicalScheduler()
    for lap in range(40):
        scheduler.update(outcome(0, 0.010, float(lap)))
        scheduler.update(outcome(1, 0.020, float(lap)))
    loads = {"r0": Load(idle=2), "r1": Load(idle=2)}
    tasks = [(Context(FAMILY, 5.0, loads), TWO)] * 60
    one_by_one = [scheduler.select(*task, 40.0, ()).arm for task in tasks]
    together = [choice.arm for choice in scheduler.select_many(tasks, 40.0, [()] * 60)]
    assert one_by_one.count("r0/v") == 60
    assert 33 <= together.count("r0/v") <= 47  # twice as fast, twice as many
    with pytest.raises(ValueError, match="draws"):
        scheduler.select_many(tasks, 40.0, [])


def test_an_old_word_about_a_queue_counts_less() -> None:
    scheduler = HierarchicalScheduler()
    for lap in range(40):
        scheduler.update(outcome(0, 0.010, float(lap)))
        scheduler.update(outcome(1, 0.020, float(lap)))
    for heard_at, arm in ((40.0, "r1/v"), (30.0, "r0/v")):
        loads = {"r0": Load(0, 2, 9, at=heard_at), "r1": Load(idle=2, at=heard_at)}
        assert scheduler.select(Context(FAMILY, 5.0, loads), TWO, 40.0, ()).arm == arm


class Oracle:
    """A prior that knows one family."""

    def log_mean_s(self, arm: str, family: str, features: object) -> float | None:
        return math.log({"r0/v": 0.050, "r1/v": 0.005}[arm]) if family == "known" else None


def test_a_prior_speaks_for_new_families_until_their_outcomes_do() -> None:
    scheduler = HierarchicalScheduler(prior=Oracle())
    for lap in range(30):
        scheduler.update(outcome(0, 0.001, float(lap)))
        scheduler.update(outcome(1, 0.002, float(lap)))
    assert scheduler.select(Context(FAMILY, 5.0), TWO, 30.0, ()).arm == "r0/v"
    assert scheduler.select(Context("known", 5.0), TWO, 30.0, ()).arm == "r1/v"
    scheduler.update(outcome(1, 0.006, 30.0, family="known"))
    without = HierarchicalScheduler.from_wire(scheduler.to_wire())
    assert without.select(Context("known", 5.0), TWO, 30.0, ()).arm == "r1/v"
    for lap in range(30):
        scheduler.update(outcome(0, 0.050, 31.0 + lap, family="known"))
        scheduler.update(outcome(1, 0.100, 31.0 + lap, family="known"))
    assert scheduler.select(Context("known", 5.0), TWO, 61.0, ()).arm == "r0/v"


def test_quantiles_and_probabilities_of_a_tail_agree() -> None:
    tail, chance = Tail(), random.Random(2)
    for _ in range(1500):
        tail.learn(chance.expovariate(1.0), 1.0)
    for q in (0.1, 0.5, 0.9, 0.99):
        assert tail.beyond(tail.quantile(q)) == pytest.approx(1 - q, abs=1e-6)
    assert tail.quantile(0.95) == pytest.approx(3.0, abs=0.3)
    assert tail.mean_of_worst(1.0, 0.0, 1e9) == 1.0
    assert tail.mean_of_worst(0.05, 0.5, 1e9) > math.exp(0.5 * 3.0)
