"""The warm size follows bursts up at once and down slowly, and never leaves its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.demand import Demand

moments = st.lists(st.floats(0, 100), min_size=1, max_size=60).map(sorted)


def test_a_quiet_pool_keeps_its_minimum() -> None:
    demand = Demand(4, 16)
    for second in range(10):
        demand.note(float(second))
        assert demand.target(float(second)) == 4
    assert demand.next_change_s(10.0) is None


def test_a_burst_raises_the_target_at_once_and_it_sinks_step_by_step() -> None:
    demand = Demand(2, 16)
    for _ in range(10):
        demand.note(5.0)
    now, steps = 5.0, [demand.target(5.0)]
    while (wait := demand.next_change_s(now)) is not None:
        now += wait
        steps.append(demand.target(now))
    assert steps == list(range(10, 1, -1))


@given(moments)
def test_it_stays_within_its_bounds(times: list[float]) -> None:
    demand = Demand(1, 8)
    for now in times:
        demand.note(now)
        assert 1 <= demand.target(now) <= 8
    assert demand.target(times[-1] + 1e6) == 1
