"""The learned scheduler: what it prefers, what it tries, what it never does."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.actors.runtime import Load
from runvisor.policies.errors import ProtocolError
from runvisor.policies.scheduling.base import Context, Ending, Outcome
from runvisor.policies.scheduling.beliefs import MAX_ARMS
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.scheduling.tuning import Tuning
from runvisor.policies.values import pack, unpack
from tests.policies.scheduling.helpers import FAMILY, arms, outcome, teach

TWO = arms(2)
CONTEXT = Context(FAMILY, 5.0)
OBJECTIVES = tuple(
    map(Objective.parse, ["mean", "mean + 2*std", "slo 5ms", "cvar 0.95", "throughput", "cost r0=3 r1=1"])
)


def best(scheduler: HierarchicalScheduler, context: Context = CONTEXT, now: float = 100.0) -> str:
    return scheduler.select(context, TWO, now, ()).arm


def log_normal(seed: int, median_s: float, deviation: float, size: int = 60) -> list[float]:
    chance = random.Random(seed)
    return [chance.lognormvariate(math.log(median_s), deviation) for _ in range(size)]


def test_before_any_outcome_the_first_arm_is_as_good_as_any() -> None:
    choice = HierarchicalScheduler().select(CONTEXT, TWO, 0.0, ())
    assert (choice.arm, choice.explored) == ("r0/v", False)
    assert [candidate.samples for candidate in choice.candidates] == [0, 0]


def test_the_faster_arm_wins() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, log_normal(1, 0.010, 0.1))
    teach(scheduler, 1, log_normal(2, 0.001, 0.1))
    assert best(scheduler) == "r1/v"


def test_predictions_agree_with_the_sample_moments() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, log_normal(3, 0.010, 0.3, 2000))
    candidate = scheduler.select(CONTEXT, TWO, 2000.0, ()).candidates[0]
    assert candidate.mean_s == pytest.approx(0.010 * math.exp(0.045), rel=0.1)
    assert candidate.std_s == pytest.approx(0.0032, rel=0.25)
    assert candidate.samples == 2000


def test_a_steady_arm_beats_one_that_is_faster_on_average_unless_rho_is_zero() -> None:
    steady, wild = log_normal(4, 0.0101, 0.05, 400), log_normal(5, 0.010 * math.exp(-0.32), 0.8, 400)
    for rho, winner in ((1.0, "r1/v"), (0.0, "r0/v")):
        scheduler = HierarchicalScheduler(objective=Objective(rho=rho))
        teach(scheduler, 0, [value * 0.75 for value in wild])
        teach(scheduler, 1, steady)
        assert best(scheduler, now=400.0) == winner


def test_a_fast_failure_never_looks_good() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, [1e-5] * 20, ending=Ending.FAILED)
    teach(scheduler, 1, log_normal(6, 0.5, 0.2, 20))
    assert best(scheduler, now=20.0) == "r1/v"


def test_an_arm_that_fails_now_and_then_pays_its_chance_times_the_timeout() -> None:
    scheduler = HierarchicalScheduler()
    for lap in range(100):
        scheduler.update(outcome(0, 0.001, 0.0, ending=Ending.FAILED if lap % 10 == 0 else Ending.RAN))
        scheduler.update(outcome(1, 0.100, 0.0))
    assert best(scheduler, Context(FAMILY, timeout_s=5.0), now=0.0) == "r1/v"
    assert best(scheduler, Context(FAMILY, timeout_s=0.2), now=0.0) == "r0/v"


def test_an_arm_that_healed_is_taken_back_though_it_was_not_tried_meanwhile() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, [0.001] * 50)
    teach(scheduler, 1, [0.010] * 50)
    teach(scheduler, 0, [0.0] * 10, start=50.0, ending=Ending.FAILED)
    assert best(scheduler, now=60.0) == "r1/v"
    assert best(scheduler, now=60.0 + 3600.0) == "r0/v"


def test_a_time_limit_counts_as_a_failure_or_as_at_least_that_long() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, [2.0, 3.0, 4.0, 2.5])
    teach(scheduler, 0, [0.0] * 5, start=4.0, ending=Ending.TIMED_OUT, timeout_s=5.0)
    candidate = scheduler.select(CONTEXT, TWO, 9.0, ()).candidates[0]
    assert candidate.mean_s is not None
    assert candidate.mean_s > 4.0
    assert candidate.failure_chance is not None
    assert candidate.failure_chance > 0.05
    teach(scheduler, 1, [2.0] * 5, start=9.0)
    assert best(scheduler, now=14.0) == "r1/v"


def test_code_that_never_ends_is_no_fault_of_the_arm() -> None:
    scheduler = HierarchicalScheduler()
    for arm, service_s in ((0, 0.001), (1, 0.010)):
        teach(scheduler, arm, [service_s] * 30)
    for lap in range(200):
        scheduler.update(outcome(0, 5.0, 30.0 + lap / 10, family="endless", ending=Ending.TIMED_OUT))
    choice = scheduler.select(CONTEXT, TWO, 50.0, ())
    assert choice.arm == "r0/v"
    assert choice.candidates[0].failure_chance == pytest.approx(0.0, abs=0.001)
    assert best(scheduler, Context("endless", 5.0), now=50.0) == "r1/v"


@pytest.mark.parametrize("kinds", [1, 40])
def test_limits_too_tight_for_anothers_code_cost_nobody_else_the_arm(kinds: int) -> None:
    scheduler = HierarchicalScheduler()
    for arm, service_s in ((0, 0.003), (1, 0.010)):
        teach(scheduler, arm, [service_s] * 60)
    for kind in range(kinds):
        teach(scheduler, 0, [0.003] * 3, start=60.0, family=f"{kind}")
    for lap in range(200):
        facts = {"family": f"{lap % kinds}", "ending": Ending.TIMED_OUT, "timeout_s": 0.05}
        scheduler.update(outcome(0, 0.05, 62.0 + lap / 100, **facts))
    for family in (FAMILY, "never seen"):
        choice = scheduler.select(Context(family, 5.0), TWO, 64.0, ())
        assert choice.arm == "r0/v"
        assert choice.candidates[0].failure_chance == pytest.approx(0.0, abs=0.001)
    assert best(scheduler, Context("0", 5.0), now=64.0) == "r1/v"


def test_an_arm_on_which_known_code_hangs_is_left() -> None:
    scheduler = HierarchicalScheduler()
    for arm, service_s in ((0, 0.001), (1, 0.010)):
        teach(scheduler, arm, [service_s] * 30)
    for lap in range(3):
        scheduler.update(outcome(0, 5.0, 30.0 + lap, ending=Ending.TIMED_OUT))
    assert best(scheduler, now=33.0) == "r1/v"


def test_a_tight_timeout_says_little_about_an_arm_known_to_be_slower() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, log_normal(7, 0.1, 0.1))
    before = scheduler.select(CONTEXT, TWO, 60.0, ()).candidates[0].mean_s
    teach(scheduler, 0, [0.001] * 5, start=60.0, ending=Ending.TIMED_OUT, timeout_s=0.001)
    after = scheduler.select(CONTEXT, TWO, 60.0, ()).candidates[0].mean_s
    assert before is not None
    assert after == pytest.approx(before, rel=0.1)


def test_a_single_outlier_moves_an_established_arm_little() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, log_normal(8, 0.001, 0.1))
    scheduler.update(outcome(0, 3.0, 60.0))
    candidate = scheduler.select(CONTEXT, TWO, 60.0, ()).candidates[0]
    assert candidate.mean_s is not None
    assert candidate.mean_s < 0.002


def test_a_lasting_change_is_followed() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, [0.001] * 300)
    teach(scheduler, 1, [0.005] * 300)
    teach(scheduler, 0, [0.050] * 60, start=300.0)
    assert best(scheduler, now=360.0) == "r1/v"


def test_a_family_never_seen_is_judged_by_the_arms_overall() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, [0.010] * 30)
    teach(scheduler, 1, [0.001] * 30)
    choice = scheduler.select(Context("python:l", 5.0), TWO, 30.0, ())
    assert choice.arm == "r1/v"
    assert choice.candidates[1].samples == 30


def test_families_are_told_apart() -> None:
    scheduler = HierarchicalScheduler()
    for arm, small_s, large_s in ((0, 0.001, 0.100), (1, 0.002, 0.010)):
        teach(scheduler, arm, [small_s] * 30, family="python:s")
        teach(scheduler, arm, [large_s] * 30, family="python:l")
    assert best(scheduler, Context("python:s", 5.0), now=30.0) == "r0/v"
    assert best(scheduler, Context("python:l", 5.0), now=30.0) == "r1/v"


def test_a_queue_costs_its_expected_wait() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, [0.010] * 30)
    teach(scheduler, 1, [0.020] * 30)
    free, full = Load(idle=2, busy=2), Load(idle=0, busy=4, waiting=12)
    assert best(scheduler, Context(FAMILY, 5.0, {"r0": free, "r1": free}), now=30.0) == "r0/v"
    assert best(scheduler, Context(FAMILY, 5.0, {"r0": full, "r1": free}), now=30.0) == "r1/v"
    assert best(scheduler, Context(FAMILY, 5.0, {"r0/v": full}), now=30.0) == "r1/v"
    choice = scheduler.select(Context(FAMILY, 5.0, {"r0": full}), TWO, 30.0, ())
    fast = choice.candidates[0]
    assert fast.score_s is not None
    assert fast.mean_s is not None
    assert fast.score_s > fast.mean_s + 13 / 4 * 0.009


def test_an_untried_arm_is_tried_and_a_critical_task_never_tries_it() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, [0.001] * 50)
    chance = random.Random(9)
    draws = [[chance.gauss(0, 1), chance.gauss(0, 1)] for _ in range(200)]
    free = [scheduler.select(CONTEXT, TWO, 50.0, pair) for pair in draws]
    tried = [choice for choice in free if choice.arm == "r1/v"]
    assert 20 < len(tried) < 180
    assert all(choice.explored for choice in tried)
    critical = Context(FAMILY, 5.0, critical=True)
    assert all(scheduler.select(critical, TWO, 50.0, pair).arm == "r0/v" for pair in draws)
    assert not scheduler.select(critical, TWO, 50.0, draws[0]).explored


def test_an_arm_well_known_to_be_slower_is_hardly_ever_tried() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, log_normal(10, 0.001, 0.1))
    teach(scheduler, 1, log_normal(11, 0.010, 0.1))
    chance = random.Random(12)
    picks = [scheduler.select(CONTEXT, TWO, 60.0, [chance.gauss(0, 1) for _ in TWO]).arm for _ in range(500)]
    assert picks.count("r1/v") <= 2


def test_doubt_about_an_arm_grows_while_nobody_uses_it() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, [0.001] * 50)
    teach(scheduler, 1, [0.0015] * 50)
    draws = [0.0, -1.5]
    assert scheduler.select(CONTEXT, TWO, 50.0, draws).arm == "r0/v"
    assert scheduler.select(CONTEXT, TWO, 50.0 + 86_400.0, draws).arm == "r1/v"


@given(st.lists(st.tuples(st.integers(0, 7), st.sampled_from(Ending), st.floats(0, 1e3)), max_size=40), st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_it_learned_it_chooses_one_of_the_arms_it_was_given(
    lessons: list[tuple[int, Ending, float]], data: st.DataObject
) -> None:
    scheduler = HierarchicalScheduler()
    for lap, (arm, ending, service_s) in enumerate(lessons):
        scheduler.update(outcome(arm, service_s, float(lap), ending=ending))
    eligible = data.draw(st.lists(st.sampled_from(arms(8)), min_size=1, unique=True))
    draws = data.draw(st.lists(st.floats(-40, 40), min_size=8, max_size=8))
    now = data.draw(st.floats(-1e3, 1e10))
    choice = scheduler.select(CONTEXT, eligible, now, draws)
    assert choice.arm in {arm.name for arm in eligible}
    assert [candidate.arm for candidate in choice.candidates] == [arm.name for arm in eligible]
    for candidate in choice.candidates:
        for number in (candidate.mean_s, candidate.std_s, candidate.score_s):
            assert number is not None
            assert math.isfinite(number)
            assert number >= 0


@pytest.mark.parametrize(("count", "draws"), [(0, ()), (2, (0.1,))])
def test_no_arms_or_too_few_draws_are_a_callers_mistake(count: int, draws: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="arm"):
        HierarchicalScheduler().select(CONTEXT, arms(count), 0.0, draws)


def test_equal_calls_choose_equally_whatever_was_asked_between() -> None:
    one, other = HierarchicalScheduler(), HierarchicalScheduler()
    for scheduler in (one, other):
        teach(scheduler, 0, log_normal(15, 0.001, 0.4))
        teach(scheduler, 1, log_normal(16, 0.001, 0.4))
    for lap in range(30):
        other.select(Context(f"f{lap}", 1.0), TWO, lap * 7.3, [lap / 9, -lap / 9])
    for lap in range(30):
        draws = [math.sin(lap), math.cos(lap)]
        assert one.select(CONTEXT, TWO, 90.0, draws) == other.select(CONTEXT, TWO, 90.0, draws)


def test_selecting_changes_nothing_that_is_published() -> None:
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, [0.001] * 5)
    before = pack(scheduler.to_wire())
    for family in range(1000):
        scheduler.select(Context(f"python:{family}", 5.0), TWO, 9.0, [0.3, -0.3])
    assert pack(scheduler.to_wire()) == before


def test_families_and_arms_are_bounded_and_the_oldest_family_makes_room() -> None:
    scheduler = HierarchicalScheduler(Tuning(max_families=3))
    for family in ("a", "b", "c", "a", "d"):
        scheduler.update(outcome(0, family=family))
    assert list(scheduler.to_wire()["families"]) == ["c", "a", "d"]
    for arm in range(2 * MAX_ARMS):
        scheduler.update(outcome(arm))
    assert len(scheduler.to_wire()["arms"]) == MAX_ARMS


def taught() -> HierarchicalScheduler:
    scheduler = HierarchicalScheduler(Tuning(explore=0.7), Objective("cvar", q=0.9))
    teach(scheduler, 0, log_normal(13, 0.001, 0.4), features=(1.0, 0.5))
    teach(scheduler, 1, log_normal(14, 0.003, 0.4), family="python:l", cold=True, cold_s=0.0001)
    teach(scheduler, 1, [0.1, 0.2], start=60.0, cold=True)
    for lap in range(6):
        scheduler.update(outcome(1, 0.0, 62.0 + lap, ending=Ending.FAILED))
    scheduler.update(outcome(0, 0.0, 70.0, ending=Ending.TIMED_OUT))
    return scheduler


def test_a_copy_from_the_wire_decides_and_learns_the_same() -> None:
    original = taught()
    copy = HierarchicalScheduler.from_wire(unpack(pack(original.to_wire())))
    assert copy.to_wire() == original.to_wire()
    for family in (FAMILY, "python:l", "new"):
        for objective in (None, *OBJECTIVES):
            context = Context(family, 5.0, features=(0.3, 1.0), objective=objective)
            assert copy.select(context, TWO, 70.0, [0.5, -1.0]) == original.select(context, TWO, 70.0, [0.5, -1.0])
    for scheduler in (original, copy):
        scheduler.update(outcome(1, 0.5, 71.0))
    assert copy.to_wire() == original.to_wire()


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    state: dict[str, Any] = unpack(pack(taught().to_wire()))
    change(state)
    return state


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("arms"),
        lambda state: state.pop("tuning"),
        lambda state: state.pop("version"),
        lambda state: state.update(version=2),
        lambda state: state.update(objective={"kind": "median"}),
        lambda state: state.update(base=[float("nan"), 3]),
        lambda state: state.update(base=[0.0, 9]),
        lambda state: state["tuning"].pop("explore"),
        lambda state: state["tuning"].update(explore=-1),
        lambda state: state["tuning"].update(tail_strength=0.5),
        lambda state: state["tuning"].update(failure_fade_s=0),
        lambda state: state["tuning"].update(max_families=1),
        lambda state: state["arms"].update({"r0/v": [1, 2]}),
        lambda state: state["arms"]["r0/v"].pop("tail"),
        lambda state: state["arms"]["r0/v"].update(runs=-1),
        lambda state: state["arms"]["r0/v"].update(noise=0),
        lambda state: state["arms"]["r0/v"].update(level=[1e5, 0.1]),
        lambda state: state["arms"]["r0/v"].update(drift=[0.0, -1.0, 0.0]),
        lambda state: state["arms"]["r0/v"].update(weights=[1.0]),
        lambda state: state["arms"]["r0/v"].update(weights=[1.0] * 200),
        lambda state: state["arms"]["r0/v"].update(ratio=[-1.0, 1.0]),
        lambda state: state["arms"]["r0/v"].update(tail=[1.0]),
        lambda state: state["arms"]["r0/v"].update(failures=[5, 1, 0]),
        lambda state: state["arms"]["r0/v"].update(breaker=[0, 0, 0, -1]),
        lambda state: state["arms"]["r0/v"].update(pace=[-1, 0, 0, 0]),
        lambda state: state["arms"]["r0/v"].update(cold=[0, 2]),
        lambda state: state["arms"].update({"": state["arms"]["r0/v"]}),
        lambda state: state["arms"].update({f"a{n}": state["arms"]["r0/v"] for n in range(MAX_ARMS)}),
        lambda state: state["families"].update({5: [[0, 1], {}]}),
        lambda state: state["families"].update({"f": []}),
        lambda state: state["families"].update({"f": [[0, -1], {}]}),
        lambda state: state["families"].update({"f": [[0, 1], {"r0/v": None}]}),
        lambda state: state["families"].update({"f": [[0, 1], {"r0/v": [0.5] + [0] * 9}]}),
        lambda state: state["families"].update({"f": [[0, 1], {f"a{n}": [0] * 10 for n in range(17)}]}),
        lambda state: state.update(failures=[1]),
        lambda state: state.update(failures=[1.7e308] * 3),
        lambda state: state.update(base=[10**400, 3]),
        lambda state: state["arms"]["r0/v"].update(runs=10**400),
    ],
)
def test_a_damaged_state_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(ProtocolError):
        HierarchicalScheduler.from_wire(broken(change))


@given(
    st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=3), st.lists),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_a_state_with_anything_at_all_in_some_place_is_read_or_refused(anything: Any, data: st.DataObject) -> None:
    state: Any = unpack(pack(taught().to_wire()))
    place: Any = state
    while True:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = anything
            break
        place = place[key]
    with suppress(ProtocolError):
        scheduler = HierarchicalScheduler.from_wire(state)
        scheduler.update(outcome(0, 0.001, 80.0))
        assert scheduler.select(CONTEXT, TWO, 80.0, [0.1, 0.2]).arm in {"r0/v", "r1/v"}


def played(pick: Callable[[HierarchicalScheduler, float, random.Random], int], seed: int) -> float:
    """Return mean regret in ms over 1500 tasks on three arms, one of which fails half the time."""
    chance, scheduler, regret = random.Random(seed), HierarchicalScheduler(), 0.0
    medians_s, failing = (0.020, 0.004, 0.001), (0.0, 0.0, 0.5)
    price_s = [median_s * 1.1 + share * 5.0 for median_s, share in zip(medians_s, failing, strict=True)]
    for lap in range(1500):
        arm = pick(scheduler, lap * 0.01, chance)
        regret += price_s[arm] - min(price_s)
        failed = chance.random() < failing[arm]
        service_s = 1e-5 if failed else chance.lognormvariate(math.log(medians_s[arm]), 0.1)
        scheduler.update(outcome(arm, service_s, lap * 0.01, ending=Ending.FAILED if failed else Ending.RAN))
    return regret / 1500 * 1e3


def test_it_learns_to_avoid_a_slow_arm_and_a_failing_one() -> None:
    three = arms(3)

    def bandit(scheduler: HierarchicalScheduler, now: float, chance: random.Random) -> int:
        choice = scheduler.select(CONTEXT, three, now, [chance.gauss(0, 1) for _ in three])
        return int(choice.arm[1:-2])

    learned = [played(bandit, seed) for seed in range(3)]
    blind = [played(lambda _, __, chance: chance.randrange(3), seed) for seed in range(3)]
    assert max(learned) < 0.02 * min(blind)


def test_a_run_too_short_to_measure_is_a_short_run() -> None:
    scheduler = HierarchicalScheduler()
    scheduler.update(Outcome("r1/v", FAMILY, Ending.RAN, 0.0, 0.0, 0.0, 0.0))
    candidate = scheduler.select(CONTEXT, TWO, 0.0, ()).candidates[1]
    assert candidate.samples == 1
    assert candidate.mean_s is not None
    assert 0 < candidate.mean_s < 1e-5
