"""The journal, learned once more, tells what was chosen and believed at each time."""

from __future__ import annotations

from runvisor.policies.scheduling.base import Ending, Outcome
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.supervisor.policy_history import history_of

FAST, SLOW = "wasm/cpython", "python/native"


def ran(arm: str, at: float, service_s: float, *, family: str = "python:xs", ending: Ending = Ending.RAN) -> Outcome:
    return Outcome(arm, family, ending, service_s, 0.0, 10.0, at)


def test_choices_and_losses_are_counted_where_they_fell() -> None:
    outcomes = [ran(FAST, at, 0.001) for at in (0.0, 1.0, 2.0)]
    outcomes += [ran(SLOW, 60.0, 0.1), ran(SLOW, 100.0, 0.0, ending=Ending.FAILED)]
    history = history_of(outcomes, HierarchicalScheduler(), slices=2)
    fast, slow = history.arms
    assert (fast.arm, fast.choices, fast.lost) == (FAST, (3, 0), (0, 0))
    assert (slow.arm, slow.choices, slow.lost) == (SLOW, (0, 2), (0, 1))
    assert (fast.median_s, slow.median_s) == ((0.001, None), (None, 0.1))
    assert history.ends[0] == 50.0
    assert history.slice_s == 50.0


def test_beliefs_follow_an_arm_that_becomes_slow() -> None:
    outcomes = [ran(FAST, float(at), 0.001 if at < 50 else 0.1) for at in range(300)]
    (arm,) = history_of(outcomes, HierarchicalScheduler(), slices=6).arms
    first, last = arm.believed_s[0], arm.believed_s[-1]
    assert first is not None
    assert last is not None
    assert first < 0.003
    assert last > 0.03


def test_nothing_is_believed_before_the_first_execution() -> None:
    outcomes = [ran(FAST, 0.0, 0.001), ran(SLOW, 100.0, 0.001)]
    slow = next(arm for arm in history_of(outcomes, HierarchicalScheduler(), slices=4).arms if arm.arm == SLOW)
    assert slow.believed_s[:3] == (None, None, None)
    assert slow.believed_s[3] is not None


def test_one_family_is_shown_and_all_are_learned() -> None:
    other = [ran(FAST, float(at), 5.0, family="python:l") for at in range(50)]
    own = [ran(FAST, 50.0 + at, 0.001) for at in range(50)]
    (arm,) = history_of(other + own, HierarchicalScheduler(), family="python:xs", slices=2).arms
    assert arm.choices == (25, 25)
    assert (arm.believed_s[-1] or 9.0) < 0.01
    assert history_of(other, HierarchicalScheduler(), family="python:xs").arms == ()
