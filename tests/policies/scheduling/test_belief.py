"""The arithmetic under the bandit."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import ProtocolError
from runvisor.policies.scheduling.belief import Belief, FailureRate, log_beyond, numbers

numbers_ = st.floats(-20, 20)


@given(st.lists(numbers_, min_size=1, max_size=50))
def test_within_its_memory_a_belief_is_the_exact_mean_and_variance(values: list[float]) -> None:
    belief = Belief()
    for value in values:
        belief.add(value, memory=100)
    assert belief.count == len(values)
    assert belief.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert belief.variance == pytest.approx(statistics.pvariance(values), abs=1e-9)


def test_beyond_its_memory_a_belief_follows_a_change() -> None:
    belief = Belief()
    for value in [0.0] * 1000 + [1.0] * 100:
        belief.add(value, memory=20)
    assert belief.mean == pytest.approx(1.0, abs=0.01)
    assert belief.variance < 0.02
    assert belief.count == 1100


@given(st.lists(numbers_, max_size=200))
def test_a_variance_is_never_negative(values: list[float]) -> None:
    belief = Belief()
    for value in values:
        belief.add(value, memory=7)
        assert belief.variance >= 0


def test_failures_fade_with_time_and_not_with_trials() -> None:
    rate = FailureRate()
    rate.add(failed=True, at=0.0, fade_s=60.0)
    chances = [rate.estimate(now, 0.0, strength=10.0, fade_s=60.0) for now in (0.0, 60.0, 600.0)]
    assert chances[0] == pytest.approx(1 / 11)
    assert chances == sorted(chances, reverse=True)
    assert chances[-1] < 1e-4


@given(st.lists(st.tuples(st.booleans(), st.floats(-100, 1000)), max_size=30), st.floats(-100, 2000), st.floats(0, 1))
def test_a_failure_rate_is_a_probability_whatever_the_clocks_say(
    trials: list[tuple[bool, float]], now: float, prior: float
) -> None:
    rate = FailureRate()
    for failed, at in trials:
        rate.add(failed=failed, at=at, fade_s=60.0)
    assert 0 <= rate.estimate(now, prior, strength=10.0, fade_s=60.0) <= 1
    assert rate.failures <= rate.trials + 1e-9


def test_without_trials_a_rate_is_its_prior_and_with_many_their_share() -> None:
    rate = FailureRate()
    assert rate.estimate(0.0, 0.25, strength=10.0, fade_s=60.0) == 0.25
    for lap in range(1000):
        rate.add(failed=lap % 5 == 0, at=0.0, fade_s=60.0)
    assert rate.estimate(0.0, 0.0, strength=10.0, fade_s=60.0) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("bound", [-3.0, 0.0, 1.0, 2.5])
def test_a_censored_value_is_the_mean_of_what_lies_beyond(bound: float) -> None:
    chance = random.Random(1)
    beyond = [value for value in (chance.gauss(0.5, 1.5) for _ in range(200_000)) if value > bound]
    assert log_beyond(bound, 0.5, 1.5) == pytest.approx(statistics.fmean(beyond), abs=0.03)


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 10))
def test_a_censored_value_is_never_below_its_bound(bound: float, mean: float, spread: float) -> None:
    value = log_beyond(bound, mean, spread)
    assert value >= bound
    assert math.isfinite(value)


@pytest.mark.parametrize(
    "data", [None, "abc", [1, 2], [1, 2, "3"], [1, 2, True], [1, 2, math.nan], [1, 2, -math.inf], (1, 2, 3)]
)
def test_rows_of_a_peer_are_finite_numbers_or_refused(data: object) -> None:
    with pytest.raises(ProtocolError):
        numbers(data, 3)


@pytest.mark.parametrize("row", [[-1, 0, 1], [1.5, 0, 1], [1, 0, -1], [1, 1e6, 1], [1, 0, 1e9]])
def test_a_belief_out_of_range_is_refused(row: list[float]) -> None:
    with pytest.raises(ProtocolError):
        Belief.from_wire(row)


@pytest.mark.parametrize("row", [[2, 1, 0], [-1, 1, 0]])
def test_more_failures_than_trials_are_refused(row: list[float]) -> None:
    with pytest.raises(ProtocolError):
        FailureRate.from_wire(row)
