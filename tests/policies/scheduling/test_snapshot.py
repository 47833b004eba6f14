"""Snapshots: what the supervisor publishes and the handles select from."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import ProtocolError
from runvisor.policies.scheduling.base import Context
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.snapshot import MAX_BATCH, Learner, Snapshot
from runvisor.policies.values import pack, unpack
from tests.policies.scheduling.helpers import FAMILY, arms, outcome

TWO = arms(2)


def batch(arm: int, service_s: float, size: int = 20, at: float = 0.0) -> list[Any]:
    return [outcome(arm, service_s, at + lap).to_wire() for lap in range(size)]


def read(learner: Learner) -> Snapshot:
    return Snapshot.from_wire(unpack(pack(learner.publish())))


def best(snapshot: Snapshot) -> str:
    return snapshot.policy.select(Context(FAMILY, 5.0), TWO, 100.0, ()).arm


def test_what_many_handles_report_reaches_all_of_them() -> None:
    learner = Learner(HierarchicalScheduler(), epoch=3)
    first = read(learner)
    assert learner.learn(unpack(pack(batch(0, 0.010))), now=100.0) == 20
    assert learner.learn(batch(1, 0.001), now=100.0) == 20
    second = read(learner)
    assert (first.version, second.version, second.epoch) == (0, 2, 3)
    assert second.supersedes(first)
    assert not first.supersedes(second)
    assert best(second) == "r1/v"


def test_a_restarted_supervisors_snapshot_supersedes_the_old_ones() -> None:
    old = Learner(HierarchicalScheduler(), epoch=1)
    old.learn(batch(0, 0.001), now=100.0)
    assert read(Learner(HierarchicalScheduler(), epoch=2)).supersedes(read(old))


def test_a_handles_copy_knows_nothing_of_what_is_learned_later() -> None:
    learner = Learner(HierarchicalScheduler())
    learner.learn(batch(0, 0.010) + batch(1, 0.020), now=100.0)
    held = read(learner)
    learner.learn(batch(1, 0.0001, 200), now=100.0)
    assert best(held) == "r0/v"
    assert best(read(learner)) == "r1/v"


def test_publishing_again_without_lessons_is_free() -> None:
    learner = Learner(HierarchicalScheduler())
    first = learner.publish()
    assert learner.publish() is first
    assert learner.learn([], now=0.0) == 0
    assert learner.publish() is first
    learner.learn(batch(0, 0.1, 1), now=0.0)
    assert learner.publish() is not first
    assert first["version"] == 0


def test_batches_teach_the_same_in_any_order_of_their_outcomes() -> None:
    mixed = [outcome(lap % 2, 0.001 * (lap + 1), float(lap)).to_wire() for lap in range(10)]
    forward, backward = Learner(HierarchicalScheduler()), Learner(HierarchicalScheduler())
    forward.learn(mixed, now=100.0)
    backward.learn(mixed[::-1], now=100.0)
    assert forward.publish() == backward.publish()


def test_a_damaged_outcome_teaches_nothing_and_spoils_its_whole_batch() -> None:
    learner = Learner(HierarchicalScheduler())
    before = learner.publish()
    damaged: Any = ([*batch(0, 0.1, 3), ["x"]], [None], "outcomes", None, batch(0, 0.1, 1) * (MAX_BATCH + 1))
    for spoiled in damaged:
        with pytest.raises(ProtocolError):
            learner.learn(spoiled, now=100.0)
    assert learner.publish() is before


@pytest.mark.parametrize(
    ("place", "number"),
    [(3, 10**400), (6, 10**400), (6, 1.7e308), (6, -1.0), (8, [10**400]), (8, [float("nan")])],
    ids=["endless", "no time", "late", "early", "a large feature", "no feature"],
)
def test_a_number_that_cannot_be_spoils_its_whole_batch(place: int, number: Any) -> None:
    learner = Learner(HierarchicalScheduler())
    before = learner.publish()
    damaged = outcome(0, 0.001, 30.0).to_wire()
    damaged[place] = number
    with pytest.raises(ProtocolError):
        learner.learn([*batch(0, 0.1, 3), damaged], now=100.0)
    assert learner.publish() is before
    assert before["state"] == HierarchicalScheduler().to_wire()


def test_invented_arms_take_no_room() -> None:
    learner = Learner(HierarchicalScheduler(), arms={"r0/v", "r1/v"})
    assert learner.learn([row for arm in range(2, 90) for row in batch(arm, 0.001, 1)], now=100.0) == 0
    assert learner.learn(batch(1, 0.001), now=100.0) == 20
    assert list(learner.publish()["state"]["arms"]) == ["r1/v"]


def test_a_handles_clock_cannot_run_ahead_of_the_supervisors() -> None:
    learner = Learner(HierarchicalScheduler())
    learner.learn([outcome(0, 0.001, 1e11).to_wire()], now=50.0)
    state = learner.publish()["state"]
    assert state["failures"][-1] == 50.0


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"policy": "oracle"},
        {"policy": None},
        {"epoch": -1},
        {"version": "1"},
        {"version": True},
        {"state": None},
    ],
)
def test_a_snapshot_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Snapshot.from_wire({**Learner(HierarchicalScheduler()).publish(), **change})


@given(
    st.none()
    | st.integers()
    | st.lists(st.integers())
    | st.dictionaries(st.sampled_from(["format", "policy", "state"]), st.just(1))
)
def test_hostile_data_is_no_snapshot(data: Any) -> None:
    with pytest.raises(ProtocolError):
        Snapshot.from_wire(data)


def test_a_full_snapshot_stays_small() -> None:
    learner = Learner(HierarchicalScheduler())
    for family in range(300):
        learner.learn([outcome(arm, 0.001, 0.0, family=f"python:{family}").to_wire() for arm in range(8)], now=1.0)
    assert len(unpack(pack(learner.publish()))["state"]["families"]) == 256
    assert len(pack(learner.publish())) < 256 * 2048
