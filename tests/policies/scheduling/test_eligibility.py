"""Which arms may run a task is found once for the table of all arms, and not kept for any other."""

from __future__ import annotations

from runvisor.policies.scheduling.arms import ARMS
from runvisor.policies.scheduling.eligibility import eligibility_of
from tests.policies.scheduling.helpers import grant


def test_a_choice_of_arms_made_for_one_task_pushes_nothing_out() -> None:
    kept = eligibility_of(ARMS, "python", grant(), {}, False)
    for _ in range(1000):
        some = tuple([arm for arm in ARMS if "python" in arm.languages])
        assert eligibility_of(some, "python", grant(), {}, False).eligible == kept.eligible
    assert eligibility_of(ARMS, "python", grant(), {}, False) is kept
