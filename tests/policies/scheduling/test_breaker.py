"""The breaker: a broken arm is left alone, probed, and taken back."""

from __future__ import annotations

from dataclasses import replace

from runvisor.policies.scheduling.base import Context, Ending
from runvisor.policies.scheduling.effects import Drift
from runvisor.policies.scheduling.failures import FailureRate
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from tests.policies.scheduling.helpers import FAMILY, arms, outcome, teach

TWO = arms(2)
CONTEXT = Context(FAMILY, 5.0)
DRAWS = (0.0, 0.0)


def tripped() -> HierarchicalScheduler:
    """Return a scheduler whose fast arm has failed six times; a probe is due at 36.2 s."""
    scheduler = HierarchicalScheduler()
    teach(scheduler, 0, [0.001] * 30)
    teach(scheduler, 1, [0.010] * 30)
    for lap in range(6):
        scheduler.update(outcome(0, 0.0, 30.0 + lap, ending=Ending.FAILED))
    return scheduler


def test_an_open_arm_gets_nothing_then_one_probe_and_all_again_after_its_success() -> None:
    scheduler = tripped()
    assert scheduler.select(CONTEXT, TWO, 35.1, DRAWS).arm == "r1/v"
    probe = scheduler.select(CONTEXT, TWO, 36.5, DRAWS)
    assert (probe.arm, probe.explored) == ("r0/v", True)
    assert scheduler.select(CONTEXT, TWO, 36.5, DRAWS).arm == "r1/v"
    scheduler.update(outcome(0, 0.001, 36.6))
    assert scheduler.select(CONTEXT, TWO, 100.0, DRAWS).arm == "r0/v"


def test_a_probe_that_fails_or_hangs_doubles_the_pause() -> None:
    scheduler = tripped()
    at = 40.0
    for ending in (Ending.FAILED, Ending.TIMED_OUT):
        assert scheduler.select(CONTEXT, TWO, at, DRAWS).arm == "r0/v"
        scheduler.update(outcome(0, 0.0, at, ending=ending))
        pause_s = scheduler.to_wire()["arms"]["r0/v"]["breaker"][3]
        assert scheduler.select(CONTEXT, TWO, at + 0.9 * pause_s, DRAWS).arm == "r1/v"
        at += 1.1 * pause_s
    assert pause_s == 4 * 1.2


def test_a_critical_task_never_probes_and_no_draws_mean_no_probe() -> None:
    for context, draws in ((replace(CONTEXT, critical=True), DRAWS), (CONTEXT, ())):
        assert tripped().select(context, TWO, 40.0, draws).arm == "r1/v"


def test_without_probes_an_arm_comes_back_when_its_failures_have_faded() -> None:
    scheduler = tripped()
    critical = replace(CONTEXT, critical=True)
    assert scheduler.select(critical, TWO, 60.0, ()).arm == "r1/v"
    assert scheduler.select(critical, TWO, 36.0 + 3600.0, ()).arm == "r0/v"


def test_when_all_eligible_arms_are_open_one_of_just_these_is_taken() -> None:
    scheduler = tripped()
    for context in (CONTEXT, replace(CONTEXT, critical=True)):
        choice = scheduler.select(context, TWO[:1], 35.1, DRAWS)
        assert choice.arm == "r0/v"
        assert len(choice.candidates) == 1


def test_a_probe_whose_outcome_never_comes_is_repeated_after_the_tasks_time_limit() -> None:
    scheduler = tripped()
    assert scheduler.select(CONTEXT, TWO, 36.5, DRAWS).arm == "r0/v"
    assert scheduler.select(CONTEXT, TWO, 41.4, DRAWS).arm == "r1/v"
    assert scheduler.select(CONTEXT, TWO, 41.6, DRAWS).arm == "r0/v"


def test_a_handles_copy_sees_the_breaker_and_probes_once() -> None:
    copy = HierarchicalScheduler.from_wire(tripped().to_wire())
    picks = [copy.select(CONTEXT, TWO, 36.5 + lap / 100, DRAWS).arm for lap in range(20)]
    assert picks.count("r0/v") == 1


def test_a_clock_that_was_set_back_brings_a_probe_at_once_and_its_success_counts() -> None:
    scheduler = HierarchicalScheduler()
    for arm, service_s in ((0, 0.001), (1, 0.010)):
        teach(scheduler, arm, [service_s] * 30, start=2e9)
    teach(scheduler, 0, [0.0] * 6, start=2e9 + 30.0, ending=Ending.FAILED)
    now = 1.7e9
    assert scheduler.select(CONTEXT, TWO, now, DRAWS).arm == "r0/v"
    scheduler.update(outcome(0, 0.001, now))
    assert not scheduler.to_wire()["arms"]["r0/v"]["breaker"][3]
    assert scheduler.select(CONTEXT, TWO, now, DRAWS).arm == "r0/v"


def test_what_was_learned_by_another_clock_counts_as_long_ago() -> None:
    rate, drift = FailureRate(), Drift(1.0, 0.1, 2e9)
    rate.add(1.0, at=2e9, fade_s=60.0)
    rate.add(1.0, at=2e9, fade_s=60.0)
    assert rate.share(2e9 - 5.0, 0.0, 1.0, 60.0) > 0.5
    assert rate.share(1.7e9, 0.0, 1.0, 60.0) == 0.0
    assert drift.seen_from(1.7e9, 0.002, 600.0, 0.5)[0] == 0.0
    rate.add(0.0, at=1.7e9, fade_s=60.0)
    drift.move_to(1.7e9, 0.002, 600.0, 0.5)
    assert rate.at == drift.at == 1.7e9
