"""A trained prior on disk: whole or not there, its owner's, and taken up by what schedules."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from runvisor.policies.errors import ConfigError
from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Context
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.prior import ArmModel, TrainedPrior, packed
from runvisor.policies.scheduling.snapshot import Snapshot
from runvisor.supervisor.belief_file import BeliefFile
from runvisor.supervisor.learned import Learned
from runvisor.supervisor.prior_file import drop_prior, load_prior, packed_prior, save_prior
from tests.policies.scheduling.helpers import outcome

SLOW, FAST = (Arm("r0", "v", frozenset(), frozenset()), Arm("r1", "v", frozenset(), frozenset()))


def prior() -> TrainedPrior:
    """Expects the second arm to be a hundred times faster."""
    return TrainedPrior({"r0/v": ArmModel(math.log(1.0)), "r1/v": ArmModel(math.log(0.01))}, features=0)


def chosen(learned: Learned, family: str) -> str:
    return Snapshot.from_wire(learned.publish()).policy.select(Context(family, 10.0), (SLOW, FAST), 30.0, ()).arm


def test_it_is_read_back_and_gone_when_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    assert load_prior(folder) is None
    save_prior(folder, prior())
    kept = load_prior(folder)
    assert kept is not None
    assert kept.to_wire() == prior().to_wire()
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    drop_prior(folder)
    assert load_prior(folder) is None


def test_one_that_is_damaged_is_an_error_to_people_and_none_to_the_scheduler(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "prior.msgpack").write_bytes(packed(prior())[:-3])
    with pytest.raises(ConfigError, match="reset --prior"):
        load_prior(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert packed_prior(tmp_path) == b""
    assert "scheduled without it" in caplog.text


@pytest.mark.parametrize("other", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_in_its_place_stops_no_supervisor(tmp_path: Path, other: Callable[[Path], None]) -> None:
    other(tmp_path / "prior.msgpack")
    assert packed_prior(tmp_path) == b""


def test_one_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "prior.msgpack").touch()
    os.truncate(tmp_path / "prior.msgpack", 1 << 40)
    with pytest.raises(ConfigError, match="larger"):
        load_prior(tmp_path)


def test_none_is_installed_where_others_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    with pytest.raises(ConfigError, match="not this user's alone"):
        save_prior(tmp_path, prior())
    assert list(tmp_path.iterdir()) == []


def test_handles_choose_by_it_from_the_next_snapshot_on_and_nothing_that_was_learned_is_lost(tmp_path: Path) -> None:
    async def live() -> None:
        learned = Learned(HierarchicalScheduler, 1, BeliefFile.of(tmp_path), 600.0)
        learned.learn("h", [outcome(0, 0.001, float(at)).to_wire() for at in range(20)], 20.0)
        learned.learn("h", [outcome(1, 0.002, float(at)).to_wire() for at in range(20)], 20.0)
        before = Snapshot.from_wire(learned.publish())
        assert chosen(learned, "python:new") == "r0/v"
        learned.adopt(packed(prior()))
        assert chosen(learned, "python:new") == "r1/v", "new code is expected to be as the prior says"
        assert chosen(learned, "python:s") == "r0/v", "what was seen counts more"
        assert Snapshot.from_wire(learned.publish()).supersedes(before)
        learned.forget(packed(prior()))
        assert chosen(learned, "python:s") == "r1/v"
        learned.forget()
        assert Snapshot.from_wire(learned.publish()).policy.prior is None  # type: ignore[attr-defined]
        await learned.close()

    asyncio.run(live())


def test_a_supervisor_begins_with_the_one_on_disk_and_not_with_the_one_that_it_was_saved_with(tmp_path: Path) -> None:
    async def live() -> None:
        first = Learned(HierarchicalScheduler, 1, BeliefFile.of(tmp_path), 600.0, packed(prior()))
        first.learn("h", [outcome(0).to_wire(), outcome(1).to_wire()], 20.0)
        await first.close()
        for data, arm in ((packed(prior()), "r1/v"), (b"", "r0/v")):
            assert chosen(Learned(HierarchicalScheduler, 2, BeliefFile.of(tmp_path), 600.0, data), "python:new") == arm

    asyncio.run(live())
