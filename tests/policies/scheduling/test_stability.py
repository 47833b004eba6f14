"""The scheduler over long times, wide ranges and any order of outcomes."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.policies.scheduling.base import Context, Ending, Outcome
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.snapshot import Learner, Snapshot
from runvisor.policies.scheduling.tuning import Tuning
from runvisor.policies.values import pack, unpack
from tests.policies.scheduling.helpers import FAMILY, arms, outcome

FOUR = arms(4)
MEDIANS_S = (0.001, 0.004, 0.02, 0.1)
MIXED = st.builds(
    outcome,
    st.integers(0, 3),
    st.floats(0, 3600),
    st.floats(0, 1e6),
    ending=st.sampled_from(Ending),
    family=st.sampled_from(["a", "b", "c", "d", "e"]),
    wait_s=st.floats(0, 60),
    timeout_s=st.floats(0, 3600),
    cold=st.booleans(),
    cold_s=st.floats(0, 10),
    features=st.lists(st.floats(-1e6, 1e6), max_size=7).map(tuple),
)


def lessons(seed: int, number: int, every_s: float = 0.01) -> Iterator[Outcome]:
    """Make outcomes of four arms and three families, one in a hundred a failure or a time limit."""
    chance = random.Random(seed)
    for lap in range(number):
        arm, family = chance.randrange(4), chance.randrange(3)
        ending = chance.choice((Ending.FAILED, Ending.TIMED_OUT)) if chance.random() < 0.01 else Ending.RAN
        service_s = chance.lognormvariate(math.log(MEDIANS_S[arm] * 3**family), 0.3)
        yield outcome(arm, service_s, lap * every_s, ending=ending, family=f"python:{family}", features=(family, 1.0))


def context_of(family: int) -> Context:
    """Return the context of one of the families of `lessons`."""
    return Context(f"python:{family}", 5.0, features=(family, 1.0))


def predictions(scheduler: HierarchicalScheduler, now: float) -> list[float]:
    candidates = [
        candidate for family in range(3) for candidate in scheduler.select(context_of(family), FOUR, now, ()).candidates
    ]
    return [candidate.mean_s or 0.0 for candidate in candidates]


def is_sound(scheduler: HierarchicalScheduler, now: float) -> bool:
    """Say whether a state can be read back and predicts finite, positive times."""
    copy = HierarchicalScheduler.from_wire(unpack(pack(scheduler.to_wire())))
    return all(0 < mean_s < 1e9 for mean_s in predictions(copy, now))


def long_run(updates: int) -> None:
    scheduler = HierarchicalScheduler()
    now = 0.0
    for lesson in lessons(1, updates):
        scheduler.update(lesson)
        now = lesson.at
    assert is_sound(scheduler, now)
    for index, mean_s in enumerate(predictions(scheduler, now)):
        true_s = MEDIANS_S[index % 4] * 3 ** (index // 4) * math.exp(0.045)
        assert true_s / 1.5 < mean_s < true_s * 1.5


def test_predictions_hold_after_twenty_thousand_outcomes() -> None:
    long_run(20_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_predictions_hold_after_ten_million_outcomes() -> None:
    long_run(10_000_000)


def test_times_from_a_microsecond_to_an_hour_are_told_apart() -> None:
    scheduler = HierarchicalScheduler()
    for lap in range(2000):
        for arm, service_s in enumerate((1e-6, 1e-3, 1.0, 3600.0)):
            scheduler.update(outcome(arm, service_s, lap * 0.1, timeout_s=7200.0))
    candidates = scheduler.select(Context(FAMILY, 7200.0), FOUR, 200.0, ()).candidates
    for candidate, service_s in zip(candidates, (1e-6, 1e-3, 1.0, 3600.0), strict=True):
        assert candidate.mean_s == pytest.approx(service_s, rel=0.1)


@given(st.lists(MIXED, max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_any_outcomes_in_any_order_leave_a_state_that_is_sound(outcomes: list[Outcome], chance: random.Random) -> None:
    shuffled = list(outcomes)
    chance.shuffle(shuffled)
    for order in (outcomes, shuffled):
        scheduler = HierarchicalScheduler(Tuning(max_families=3))
        for each in order:
            scheduler.update(each)
        state = scheduler.to_wire()
        copy = HierarchicalScheduler.from_wire(unpack(pack(state)))
        assert copy.to_wire() == state
        assert len(state["families"]) <= 3
        for name in (*state["families"], "new"):
            choice = copy.select(Context(name, 5.0, features=(1.0,)), FOUR, 1e6, (0.1, 0.2, -0.3, 0.0))
            assert choice == scheduler.select(Context(name, 5.0, features=(1.0,)), FOUR, 1e6, (0.1, 0.2, -0.3, 0.0))
            assert all(math.isfinite(candidate.score_s or 0.0) for candidate in choice.candidates)


def test_outcomes_of_many_handles_teach_about_the_same_in_whatever_order_their_batches_come() -> None:
    """Each outcome is learned from once; only how far apart two orders end is not nothing."""
    batches = [[lesson.to_wire() for lesson in list(lessons(seed, 300))] for seed in range(8)]
    learned = []
    for order in (batches, batches[::-1]):
        learner = Learner(HierarchicalScheduler())
        for batch in order:
            learner.learn(batch, now=10.0)
        policy = Snapshot.from_wire(unpack(pack(learner.publish()))).policy
        assert isinstance(policy, HierarchicalScheduler)
        learned.append(policy)
    one, other = (predictions(policy, 10.0) for policy in learned)
    assert all(abs(math.log(a / b)) < 0.15 for a, b in zip(one, other, strict=True))
    runs = [{name: arm["runs"] for name, arm in policy.to_wire()["arms"].items()} for policy in learned]
    assert sum(runs[0].values()) == pytest.approx(sum(runs[1].values()), rel=0.01)


def test_a_family_takes_at_most_two_kilobytes_whatever_arms_it_meets() -> None:
    scheduler = HierarchicalScheduler()
    for lap in range(600):
        scheduler.update(Outcome(f"runtime-{lap % 30}/a-variant", "f" * 100, Ending.RAN, 0.001, 0.0, 5.0, float(lap)))
    (family,) = scheduler.to_wire()["families"].values()
    assert len(pack({"f" * 100: family})) <= 2048
    ten = dict(list(family[1].items())[:10])
    assert len(pack([family[0], ten])) < 1300
