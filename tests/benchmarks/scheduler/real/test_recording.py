"""Recordings: kept as they were made, and made in rounds that can be gone on with."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from pathlib import Path

import pytest

from benchmarks.scheduler.real.recorder import rounds_in, rounds_of
from benchmarks.scheduler.real.recording import Recording, Run, packed, split
from benchmarks.scheduler.real.workload import PROGRAMS
from tests.benchmarks.scheduler.real.recorded import ABOUT, ARMS, recording


def test_a_file_holds_every_run(tmp_path: Path) -> None:
    odd = Run(("js sieve", 1, "v8/isolate"), 0.25, 0.125, 0.0625, cold=True, failed=True, hogged=True)
    made = Recording(ABOUT, (*recording().runs, odd))
    made.save(tmp_path / "recording")
    assert Recording.load(tmp_path / "recording") == made


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recording").write_bytes(packed({"format": 0}))
    with pytest.raises(ValueError, match="record again"):
        Recording.load(tmp_path / "recording")


def test_failed_and_hogged_runs_are_no_quiet_samples() -> None:
    key = ("js sieve", 0, "v8/isolate")
    runs = (Run(key, 1.0, 1.0, 0.0), Run(key, 2.0, 2.0, 0.0, failed=True), Run(key, 3.0, 3.0, 0.0, hogged=True))
    made = Recording(ABOUT, runs)
    assert [run.elapsed_s for run in made.cells()[key]] == [1.0]
    assert [run.elapsed_s for run in made.cells(hogged=True)[key]] == [3.0]


def test_the_halves_are_equal_parts_and_take_turns() -> None:
    runs = recording().runs[:7]
    left, right = split(runs)
    assert [item for pair in zip(left, right, strict=False) for item in pair] + left[3:] == list(runs)


def test_every_program_runs_equally_often_on_each_of_its_arms() -> None:
    programs = [PROGRAMS[name] for name in ARMS]
    rounds = list(rounds_of(programs, ARMS, 25, 1))
    assert rounds == list(rounds_of(programs, ARMS, 25, 1))
    quiet = Counter(key for hogged, keys in rounds if not hogged for key in keys)
    assert quiet.total() == 25 * sum(map(len, ARMS.values()))
    assert {arm: quiet["js sieve", 0, arm] for arm in ARMS["js sieve"]} == dict.fromkeys(ARMS["js sieve"], 10)
    assert any(hogged for hogged, _ in rounds)
    assert rounds[0][1] != sorted(rounds[0][1])


def test_a_recording_that_was_broken_off_goes_on_behind_its_last_whole_round(tmp_path: Path) -> None:
    part, runs = tmp_path / "part", list(recording().runs[:3])
    written = packed({"seed": 1}) + packed([astuple(run) for run in runs])
    part.write_bytes(written + packed([astuple(run) for run in runs])[:-5])
    assert rounds_in(part, {"seed": 1}) == [runs]
    assert part.read_bytes() == written
    with pytest.raises(ValueError, match="another recording"):
        rounds_in(part, {"seed": 2})
