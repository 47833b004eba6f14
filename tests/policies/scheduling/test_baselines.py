"""The policies that ours is compared with: each does what its paper says."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.actors.runtime import Load
from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Context, Ending, Selector
from runvisor.policies.scheduling.baselines.chance import RandomScheduler
from runvisor.policies.scheduling.baselines.draws import gamma, two_normals, two_uniforms, uniform
from runvisor.policies.scheduling.baselines.epsilon_greedy import EpsilonGreedyScheduler
from runvisor.policies.scheduling.baselines.least_loaded import LeastLoadedScheduler
from runvisor.policies.scheduling.baselines.linear_thompson import LinearThompsonScheduler
from runvisor.policies.scheduling.baselines.losses import Losses, queue_s
from runvisor.policies.scheduling.baselines.mean_variance_thompson import MeanVarianceThompsonScheduler
from runvisor.policies.scheduling.baselines.moments import Moments
from runvisor.policies.scheduling.baselines.mv_lcb import MvLcbScheduler
from runvisor.policies.scheduling.baselines.preference import PreferenceScheduler
from runvisor.policies.scheduling.baselines.round_robin import RoundRobinScheduler
from runvisor.policies.scheduling.baselines.static_rules import StaticRulesScheduler
from runvisor.policies.scheduling.baselines.ucb1 import Ucb1Scheduler
from tests.policies.scheduling.helpers import FAMILY, arms, outcome

THREE = arms(3)
TWO = arms(2)
CONTEXT = Context(FAMILY, 5.0)
LEARNING: tuple[Callable[[], Any], ...] = (
    EpsilonGreedyScheduler,
    Ucb1Scheduler,
    MvLcbScheduler,
    MeanVarianceThompsonScheduler,
    LinearThompsonScheduler,
)
AVERSE = LEARNING[2:]
"""Those that look at variance."""
EVERY: tuple[Callable[[], Any], ...] = (
    *LEARNING,
    RandomScheduler,
    RoundRobinScheduler,
    StaticRulesScheduler,
    LeastLoadedScheduler,
    PreferenceScheduler,
)


def normals(seed: int, laps: int, size: int) -> list[list[float]]:
    chance = random.Random(seed)
    return [[chance.gauss(0.0, 1.0) for _ in range(size)] for _ in range(laps)]


def play(
    policy: Any,
    services_s: Sequence[Callable[[random.Random], float]],
    laps: int = 600,
    seed: int = 1,
    **failing: float,
) -> list[str]:
    """Let a policy choose and learn for a while; returns what it chose in the last third."""
    chance, eligible, chosen = random.Random(seed), arms(len(services_s)), []
    for lap, draws in enumerate(normals(seed, laps, len(services_s))):
        arm = policy.select(CONTEXT, eligible, float(lap), draws).arm
        place = int(arm[1:-2])
        failed = chance.random() < failing.get(f"r{place}", 0.0)
        service_s = 1e-5 if failed else services_s[place](chance)
        policy.update(outcome(place, service_s, float(lap), ending=Ending.FAILED if failed else Ending.RAN))
        chosen.append(arm)
    return chosen[-laps // 3 :]


def log_normal(median_s: float, deviation: float) -> Callable[[random.Random], float]:
    return lambda chance: chance.lognormvariate(math.log(median_s), deviation)


def test_preference_takes_the_first_arm_whatever_the_load() -> None:
    loads = {"r0": Load(0, 4, 9)}
    assert PreferenceScheduler().select(Context(FAMILY, 5.0, loads), THREE, 0.0, ()).arm == "r0/v"


def test_least_loaded_weighs_the_queue_by_the_pools_size_and_takes_the_first_of_equals() -> None:
    loads = {"r0": Load(idle=0, busy=2, waiting=1), "r1": Load(idle=6, busy=2), "r2": Load(idle=3, busy=1)}
    policy = LeastLoadedScheduler()
    assert policy.select(Context(FAMILY, 5.0, loads), THREE, 0.0, ()).arm == "r1/v"
    assert policy.select(Context(FAMILY, 5.0), THREE, 0.0, ()).arm == "r0/v"


def test_chance_takes_each_arm_as_often() -> None:
    picks = [RandomScheduler().select(CONTEXT, THREE, 0.0, draws).arm for draws in normals(1, 3000, 3)]
    assert all(abs(picks.count(arm.name) - 1000) < 100 for arm in THREE)


def test_round_robin_goes_on_where_it_stopped_though_the_arms_differ() -> None:
    policy = RoundRobinScheduler()
    picks = [policy.select(CONTEXT, eligible, 0.0, ()).arm for eligible in (THREE, THREE, THREE, TWO, TWO)]
    assert picks == ["r0/v", "r1/v", "r2/v", "r1/v", "r0/v"]


def test_the_static_rules_know_a_runtime_for_each_language_and_leave_one_that_fails_mostly() -> None:
    policy = StaticRulesScheduler()
    isolate, quickjs = (Arm(name, "a", frozenset(), frozenset()) for name in ("v8", "wasm"))
    container, native = (Arm(name, "a", frozenset(), frozenset()) for name in ("container", "python"))

    def best(language: str) -> str:
        return policy.select(Context(f"{language}:s", 5.0), (quickjs, container, isolate, native), 0.0, ()).arm

    assert [best(language) for language in ("javascript", "python", "c")] == ["v8/a", "python/a", "wasm/a"]
    for ending in (Ending.RAN, Ending.FAILED, Ending.TIMED_OUT):
        policy.update(replace_arm(outcome(0, ending=ending, family="javascript:s"), "v8/a"))
    assert best("javascript") == "container/a"
    assert best("typescript") == "v8/a"


def replace_arm(one: Any, name: str) -> Any:
    return type(one)(name, one.family, one.ending, one.service_s, one.wait_s, one.timeout_s, one.at)


@pytest.mark.parametrize("make", LEARNING)
def test_the_faster_of_two_arms_is_found(make: Callable[[], Any]) -> None:
    assert play(make(), [log_normal(0.010, 0.3), log_normal(0.004, 0.3)]).count("r1/v") > 170


@pytest.mark.parametrize("make", LEARNING)
def test_an_arm_that_fails_fast_does_not_look_fast(make: Callable[[], Any]) -> None:
    assert play(make(), [log_normal(0.010, 0.1), log_normal(0.004, 0.1)], r1=0.5).count("r0/v") > 160


@pytest.mark.parametrize("make", AVERSE)
def test_of_equal_means_the_steadier_arm_is_found_by_those_that_look_at_variance(make: Callable[[], Any]) -> None:
    wild = log_normal(0.010 * math.exp(-0.5), 1.0)
    assert play(make(), [wild, log_normal(0.010, 0.05)], laps=1500).count("r1/v") > 350


@pytest.mark.parametrize("make", EVERY)
def test_they_choose_one_of_the_arms_that_they_are_given_and_refuse_to_choose_from_nothing(
    make: Callable[[], Any],
) -> None:
    policy = make()
    for lap, draws in enumerate(normals(3, 40, 3)):
        eligible = THREE[lap % 3 :] + THREE[: lap % 2]
        choice = policy.select(CONTEXT, eligible, 0.0, draws + draws)
        assert choice.arm in {arm.name for arm in eligible}
        assert [candidate.arm for candidate in choice.candidates] == [arm.name for arm in eligible]
        if hasattr(policy, "update"):
            policy.update(outcome(int(choice.arm[1:-2]), 0.001 * (lap + 1)))
    with pytest.raises(ValueError, match="no arm"):
        policy.select(Context(FAMILY, 5.0), (), 0.0, ())


@pytest.mark.parametrize("make", LEARNING)
def test_a_critical_task_tries_nothing(make: Callable[[], Any]) -> None:
    policy = make()
    for _ in range(5):
        policy.update(outcome(0, 0.0002))
    critical = Context(FAMILY, 5.0, critical=True)
    picks = [policy.select(critical, TWO, 0.0, draws) for draws in normals(4, 50, 2)]
    assert {choice.arm for choice in picks} == {"r0/v"}
    assert not any(choice.explored for choice in picks)


@pytest.mark.parametrize("make", LEARNING)
def test_a_queue_is_seen_unless_the_textbook_is_asked_for(make: Callable[..., Any]) -> None:
    for sees, arm in ((True, "r1/v"), (False, "r0/v")):
        policy = make(sees_queue=sees)
        for _ in range(30):
            policy.update(outcome(0, 0.010))
            policy.update(outcome(1, 0.012))
        loads = {"r0": Load(idle=0, busy=2, waiting=9), "r1": Load(idle=2)}
        assert policy.select(Context(FAMILY, 5.0, loads), TWO, 0.0, ()).arm == arm


def test_epsilon_greedy_explores_as_often_as_it_says() -> None:
    policy = EpsilonGreedyScheduler(epsilon=0.3)
    policy.update(outcome(0, 0.001))
    policy.update(outcome(1, 0.010))
    picks = [policy.select(CONTEXT, TWO, 0.0, draws).arm for draws in normals(5, 4000, 2)]
    assert picks.count("r1/v") / 4000 == pytest.approx(0.15, abs=0.02)


def believed(count: int, mean: float, deviation: float) -> Moments:
    moments = Moments()
    moments.count, moments.mean, moments.variance = count, mean, deviation**2
    return moments


def test_ucb1s_bound_is_that_of_auer_and_others() -> None:
    known = [believed(4, 0.2, 0.0), believed(12, 0.1, 0.0)]
    indices = Ucb1Scheduler(1.0, memory=1000).indices(known, [0.0, 0.0], 1.0, [0.0, 0.0])
    bounds = [math.sqrt(2 * math.log(16) / 4), math.sqrt(2 * math.log(16) / 12)]
    assert indices == pytest.approx([0.2 - bounds[0], 0.1 - bounds[1]])


def test_mv_lcbs_bound_is_that_of_sani_and_others() -> None:
    known = [believed(9, 0.2, 0.3), believed(7, 0.1, 0.4)]
    policy = MvLcbScheduler(1.0, rho=2.0, deviation=False, memory=1000)
    bounds = [7.0 * math.sqrt(math.log(16) / (2 * count)) for count in (9, 7)]
    expected = [0.09 + 0.4 - bounds[0], 0.16 + 0.2 - bounds[1]]
    assert policy.indices(known, [0.0, 0.0], 1.0, [0.0, 0.0]) == pytest.approx(expected)
    deviation = MvLcbScheduler(1.0, rho=2.0, memory=1000).indices(known, [0.1, 0.0], 1.0, [])
    assert deviation == pytest.approx([0.3 + 0.6, 0.1 + 0.8])


def test_thompson_samples_have_the_moments_of_the_posterior() -> None:
    policy = MeanVarianceThompsonScheduler(1.0, memory=1000)
    chance = random.Random(6)
    drawn = [policy.sample(believed(20, 0.3, 0.2), 0.1, chance.gauss(0, 1), chance.gauss(0, 1)) for _ in range(20_000)]
    shape, rate = 0.5 + 10.0, 0.5 + 20 * 4.0 / 2
    assert statistics.fmean(mean for mean, _ in drawn) == pytest.approx(3.0, abs=0.01)
    assert statistics.stdev(mean for mean, _ in drawn) == pytest.approx(1 / math.sqrt(20), rel=0.03)
    assert statistics.fmean(precision for _, precision in drawn) == pytest.approx(shape / rate, rel=0.02)
    assert statistics.stdev(precision for _, precision in drawn) == pytest.approx(math.sqrt(shape) / rate, rel=0.04)


def test_the_linear_models_coefficients_are_those_of_ridge_regression() -> None:
    chance = np.random.default_rng(7)
    policy = LinearThompsonScheduler(keep=1.0)
    features = chance.normal(size=(60, 2))
    logs = 1.0 + 0.5 * features[:, 0] - 0.2 * features[:, 1] + chance.normal(0.0, 0.1, 60)
    for row, value in zip(features, logs, strict=True):
        policy.update(outcome(0, 1e-3 * math.exp(value), features=tuple(row.tolist())))
    model = policy._models["r0/v"]
    rows = np.array([policy._row(FAMILY, row) for row in features.tolist()])
    penalty = np.eye(rows.shape[1]) / 4.0
    ridge = np.linalg.solve(rows.T @ rows + penalty, rows.T @ logs)
    assert model.coefficients == pytest.approx(ridge, abs=1e-8)
    assert model.covariance == pytest.approx(np.linalg.inv(rows.T @ rows + penalty), abs=1e-8)


def test_the_variance_head_learns_which_tasks_are_unsteady() -> None:
    chance = random.Random(8)
    policy = LinearThompsonScheduler()
    for _ in range(400):
        wild = chance.random() < 0.5
        service_s = chance.lognormvariate(math.log(0.01), 0.8 if wild else 0.05)
        policy.update(outcome(0, service_s, features=(float(wild),)))
    std_s = [
        policy.select(Context(FAMILY, 5.0, features=(wild,)), TWO[:1], 0.0, ()).candidates[0].std_s
        for wild in (0.0, 1.0)
    ]
    assert std_s[0] is not None
    assert std_s[1] is not None
    assert std_s[1] > 3 * std_s[0]


def test_a_loss_is_the_timeout_unless_it_ended_well() -> None:
    losses = Losses(memory=100)
    for ending in Ending:
        losses.add(outcome(int(ending), 0.001, ending=ending))
    means = [known.mean for arm in THREE if (known := losses.of(FAMILY, arm.name))]
    assert means == [0.001, 5.0, 5.0]


def test_a_wait_is_what_lies_before_the_next_request() -> None:
    assert queue_s(Load(idle=1, busy=3), 1.0) == 0.0
    assert queue_s(Load(idle=0, busy=4, waiting=3), 1.0) == 1.0
    assert queue_s(None, 1.0) == 0.0


def test_families_are_forgotten_in_the_order_of_their_use() -> None:
    losses = Losses(memory=10)
    for number in range(600):
        losses.add(outcome(0, family=f"f{number}"))
        losses.add(outcome(0, family="kept"))
    assert losses.of("kept", "r0/v") is not None
    assert losses.of("f0", "r0/v") is None


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=50))
def test_within_its_memory_the_moments_are_exact(values: list[float]) -> None:
    moments = Moments()
    for value in values:
        moments.add(value, memory=100)
    assert moments.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert moments.variance == pytest.approx(statistics.pvariance(values), abs=1e-9)


def test_one_normal_draw_makes_two_independent_ones() -> None:
    pairs = [two_normals(draw) for (draw,) in normals(9, 20_000, 1)]
    for one in zip(*pairs, strict=True):
        assert statistics.fmean(one) == pytest.approx(0.0, abs=0.03)
        assert statistics.stdev(one) == pytest.approx(1.0, abs=0.02)
    assert abs(statistics.correlation(*zip(*pairs, strict=True))) < 0.03


@given(st.floats(-40, 40))
@settings(max_examples=200)
def test_draws_of_any_size_make_numbers(draw: float) -> None:
    assert 0.0 <= uniform(draw) <= 1.0
    assert all(0.0 < value < 1.0 for value in two_uniforms(draw))
    assert gamma(draw, 0.5, 2.0) > 0.0
    assert all(map(math.isfinite, two_normals(draw)))


def test_gamma_draws_have_the_moments_of_the_distribution() -> None:
    drawn = [gamma(draw, 3.0, 2.0) for (draw,) in normals(10, 20_000, 1)]
    assert statistics.fmean(drawn) == pytest.approx(1.5, rel=0.02)
    assert statistics.stdev(drawn) == pytest.approx(math.sqrt(3.0) / 2.0, rel=0.03)


def test_each_has_a_name_of_its_own_and_says_what_it_minimises() -> None:
    policies: list[Selector] = [make() for make in EVERY]
    assert len({getattr(policy, "name", "") for policy in policies}) == len(EVERY)
    assert all(policy.objective for policy in policies)
