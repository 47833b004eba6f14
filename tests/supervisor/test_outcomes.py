"""The journal keeps every whole record, whatever became of the process that wrote it."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies.errors import ConfigError
from runvisor.policies.scheduling.base import Ending, Outcome
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.outcomes import FILE_BYTES, OutcomeJournal, frame_of, outcomes_in


def outcome(number: int, at: float = 0.0) -> Outcome:
    return Outcome("python/native", f"python:xs:f{number}", Ending.RAN, 0.001, 0.0, 10.0, at or float(number))


def filled(folder: Path, count: int, *, file_bytes: int = FILE_BYTES) -> OutcomeJournal:
    """A journal with so many batches of two."""
    journal = OutcomeJournal(folder, file_bytes=file_bytes)
    for number in range(0, 2 * count, 2):
        journal.add([outcome(number).to_wire(), outcome(number + 1).to_wire()], now=1e9)
    journal.close()
    return journal


def test_what_was_added_is_read_back_in_order_of_time(tmp_path: Path) -> None:
    journal = filled(tmp_path / "policy", 3)
    journal.add([outcome(99, at=0.5).to_wire()], now=1e9)
    journal.close()
    assert journal.read() == [outcome(0), outcome(99, at=0.5), *map(outcome, range(1, 6))]
    journal.clear()
    assert journal.read() == []


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    journal = filled(tmp_path / "policy", 1)
    (file,) = journal.folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.folder.stat().st_mode) == 0o700


def test_a_journal_that_is_something_else_is_neither_read_nor_written(tmp_path: Path) -> None:
    journal = filled(tmp_path / "policy", 1)
    (file,) = journal.folder.iterdir()
    file.rename(tmp_path / "elsewhere")
    kept = (tmp_path / "elsewhere").read_bytes()
    file.symlink_to(tmp_path / "elsewhere")
    filled(journal.folder, 1)
    assert (tmp_path / "elsewhere").read_bytes() == kept
    with pytest.raises(ConfigError, match="reset --journal"):
        journal.read()
    journal.clear()
    assert journal.read() == []


def test_nothing_is_written_into_a_folder_that_others_may_use(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert list(filled(tmp_path, 1).folder.iterdir()) == []


def test_it_is_bounded_and_the_oldest_go(tmp_path: Path) -> None:
    size = len(next((filled(tmp_path / "one", 1).folder).iterdir()).read_bytes())
    journal = OutcomeJournal(tmp_path / "many", file_bytes=4 * size)
    for number in range(40):
        journal.add([outcome(number).to_wire()] * 2, now=1e9)
        journal.close()  # a write for each
    kept = [each.at for each in journal.read()]
    assert sum(file.stat().st_size for file in journal.folder.iterdir()) <= 2 * 4 * size
    assert kept[-1] == 39
    assert 8 <= len(kept) <= 16


def test_a_clock_that_is_ahead_is_not_believed(tmp_path: Path) -> None:
    journal = OutcomeJournal(tmp_path)
    journal.add([outcome(1, at=500.0).to_wire()], now=100.0)
    journal.close()
    assert [each.at for each in journal.read()] == [100.0]


def test_a_batch_that_cannot_be_written_costs_no_other_its_place(tmp_path: Path) -> None:
    journal = OutcomeJournal(tmp_path)
    journal.add([[*outcome(1).to_wire()[:-1], 10**30]], now=1e9)
    journal.add([outcome(2).to_wire()], now=1e9)
    journal.close()
    assert journal.read() == [outcome(2)]


def test_several_processes_may_write(tmp_path: Path) -> None:
    def write(first: int) -> None:
        for number in range(first, first + 50):
            journal = OutcomeJournal(tmp_path)
            journal.add([outcome(number).to_wire()], now=1e9)
            journal.close()

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 50, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.at for each in OutcomeJournal(tmp_path).read()} == set(map(float, range(1, 150))) | {0.0}


def test_what_a_killed_process_had_written_is_kept(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from runvisor.supervisor.outcomes import OutcomeJournal
from tests.supervisor.test_outcomes import outcome
journal = OutcomeJournal(Path(sys.argv[1]))
journal.add([outcome(1).to_wire(), outcome(2).to_wire()], now=1e9)
while not journal.read(): pass
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert OutcomeJournal(tmp_path).read() == [outcome(1), outcome(2)]


@pytest.mark.root
@pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail)
def test_the_supervisor_keeps_how_executions_went_and_nothing_of_what_they_were(supervisor: Supervisor) -> None:
    journal = OutcomeJournal(Path(supervisor.describe()["policy_folder"]))
    began = time.time()
    with Supervisor.start(principal="ada") as client:  # it reports before it closes
        result = client.run("print('a word that nobody else may read')", "python", label="a label")
    kept: list[Outcome] = []
    while not kept:
        kept = [each for each in journal.read() if each.at >= began and each.arm.startswith("python/")]
        assert time.time() < began + 60
    assert kept[-1].ending is Ending.RAN
    assert kept[-1].service_s == result.usage.wall_s
    kept_bytes = b"".join(file.read_bytes() for file in journal.folder.glob("outcomes*"))
    assert not any(word in kept_bytes for word in (b"nobody", b"ada", b"label"))


_BATCHES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@given(_BATCHES, st.data())
def test_a_file_cut_anywhere_loses_the_record_that_was_cut_and_no_other(sizes: list[int], data: st.DataObject) -> None:
    frames = [_frame(index, size) for index, size in enumerate(sizes)]
    whole = b"".join(frames)
    cut = data.draw(st.integers(0, len(whole)))
    kept, length = 0, 0
    for frame in frames:
        length += len(frame)
        kept += length <= cut
    torn = whole[:cut]
    assert len(list(outcomes_in(torn))) == sum(sizes[:kept])
    later = torn + _frame(9, 1)  # the next process appends behind the torn record
    assert len(list(outcomes_in(later))) == sum(sizes[:kept]) + 1


@given(_BATCHES, st.data())
def test_a_damaged_byte_loses_at_most_its_record(sizes: list[int], data: st.DataObject) -> None:
    frames = [_frame(index, size) for index, size in enumerate(sizes)]
    hit = data.draw(st.integers(0, len(frames) - 1))
    place = data.draw(st.integers(0, len(frames[hit]) - 1))
    damaged = bytearray(frames[hit])
    damaged[place] ^= data.draw(st.integers(1, 255))
    read = list(outcomes_in(b"".join([*frames[:hit], bytes(damaged), *frames[hit + 1 :]])))
    assert len(read) == sum(sizes) - sizes[hit]


@given(st.binary(max_size=400))
def test_any_bytes_are_a_journal_though_perhaps_an_empty_one(junk: bytes) -> None:
    assert [each.at for each in outcomes_in(junk + _frame(3, 1) + junk)] == [3.0]


def _frame(number: int, size: int) -> bytes:
    return frame_of(1e9, [outcome(number).to_wire()] * size)
