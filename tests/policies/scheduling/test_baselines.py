"""Policies that learn nothing."""

from __future__ import annotations

import pytest

from runvisor.actors.runtime import Load
from runvisor.policies.scheduling.base import Context, Selector
from runvisor.policies.scheduling.baselines.least_loaded import LeastLoadedScheduler
from runvisor.policies.scheduling.baselines.preference import PreferenceScheduler
from tests.policies.scheduling.helpers import FAMILY, arms

THREE = arms(3)


def test_preference_takes_the_first_arm_whatever_the_load() -> None:
    loads = {"r0": Load(0, 4, 9)}
    assert PreferenceScheduler().select(Context(FAMILY, 5.0, loads), THREE, 0.0, ()).arm == "r0/v"


def test_least_loaded_weighs_the_queue_by_the_pools_size_and_takes_the_first_of_equals() -> None:
    loads = {"r0": Load(idle=0, busy=2, waiting=1), "r1": Load(idle=6, busy=2), "r2": Load(idle=3, busy=1)}
    policy = LeastLoadedScheduler()
    assert policy.select(Context(FAMILY, 5.0, loads), THREE, 0.0, ()).arm == "r1/v"
    assert policy.select(Context(FAMILY, 5.0), THREE, 0.0, ()).arm == "r0/v"


@pytest.mark.parametrize("policy", [PreferenceScheduler(), LeastLoadedScheduler()])
def test_they_refuse_to_choose_from_nothing(policy: Selector) -> None:
    with pytest.raises(ValueError, match="no arm"):
        policy.select(Context(FAMILY, 5.0), (), 0.0, ())
