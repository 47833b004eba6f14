"""Restart intensity: how often a child may die before its supervisor gives up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runvisor.supervisor.tree import RestartIntensity


@given(st.lists(st.floats(0, 5), max_size=40), st.integers(1, 5))
def test_no_window_ever_holds_more_than_the_intensity(gaps: list[float], intensity: int) -> None:
    restarts, now, admitted = RestartIntensity(intensity, period_s=10.0), 0.0, []
    for gap in gaps:
        now += gap
        if restarts.admits(now):
            admitted.append(now)
    for at in admitted:
        assert sum(at - 10.0 <= other <= at for other in admitted) <= intensity


def test_old_restarts_are_forgotten() -> None:
    restarts = RestartIntensity(1, period_s=10.0)
    assert restarts.admits(0.0)
    assert not restarts.admits(5.0)
    assert restarts.admits(11.0)
