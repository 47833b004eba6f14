"""A decision's own words."""

from __future__ import annotations

from runvisor.policies.scheduling.decision import Candidate, Decision

FAST = Candidate("a/x", 0.001, 0.0002, 12, 0.0012)
SLOW = Candidate("b/y", 0.010, 0.001, 1, 0.011)


def test_the_only_arm_is_called_so() -> None:
    assert Decision("a/x", (FAST,)).explain() == (
        "Chose a/x, the only arm that may run this task (expected 1 ms with a deviation of 0.2 ms from 12 runs)."
    )


def test_the_others_are_compared() -> None:
    assert Decision("a/x", (FAST, SLOW), objective="cost").explain() == (
        "Chose a/x: expected 1 ms with a deviation of 0.2 ms from 12 runs, the lowest cost. "
        "Against b/y (expected 10 ms with a deviation of 1 ms from 1 run)."
    )


def test_an_exploration_is_called_so() -> None:
    text = Decision("c/z", (FAST, Candidate("c/z", 0.001, 0.0, 0, 0.0)), explored=True).explain()
    assert text.startswith("Chose c/z to learn about it (not tried yet). Against a/x (")
