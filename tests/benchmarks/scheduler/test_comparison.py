"""The comparison: that figures are put together rightly and bars can be missed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scheduler import simulate
from benchmarks.scheduler.comparison import Comparison, Job, interval, jobs, run
from benchmarks.scheduler.contenders import CONTENDERS
from benchmarks.scheduler.regimes import REGIMES
from benchmarks.scheduler.verdicts import verdicts


def figures(regret: float, p99_ms: float, **other: float) -> dict[str, float]:
    return {"relative_regret": regret, "p99_ms": p99_ms, "total_cost_ms": p99_ms, **other}


def made(regret: float, p99_ms: float, crowd_ms: float, other_regret: float = 0.3) -> Comparison:
    """Return a comparison of two policies in two seeds of one regime, ours also with four handles."""
    comparison = Comparison()
    for seed in (0, 1):
        ours = figures(regret + seed / 100, p99_ms)
        theirs = figures(other_regret + seed / 100, 10.0)
        comparison.add(Job("busy", seed, 10, 1, ()), {"ours": ours, "static-rules": theirs})
        comparison.add(Job("busy", seed, 10, 4, ()), {"ours": figures(regret, crowd_ms)})
    return comparison


@pytest.mark.parametrize(
    ("comparison", "met"),
    [
        (made(0.05, 9.0, 9.1), [True, True, True, True]),
        (made(0.15, 9.0, 9.1), [False, True, True, True]),
        (made(0.05, 9.0, 9.1, other_regret=0.06), [True, False, True, True]),
        (made(0.05, 11.0, 11.0), [True, True, False, True]),
        (made(0.05, 9.0, 12.0), [True, True, True, False]),
    ],
)
def test_each_bar_can_be_met_and_missed(comparison: Comparison, met: list[bool]) -> None:
    found = verdicts(comparison, ["busy"], "ours", ["static-rules"], (1, 4))
    assert [verdict.met for verdict in found] == met


def test_an_interval_is_students_and_one_seed_proves_nothing() -> None:
    known = interval([2.0, 4.0, 6.0, 8.0])
    assert (known.mean, known.most) == (5.0, 8.0)
    assert known.half == pytest.approx(3.182 * 2.582 / 2, rel=1e-3)
    assert interval([1.0]).high == float("inf")


def test_every_contender_runs_on_the_same_luck_and_its_whole_cost_is_set_against_the_oracles() -> None:
    names = tuple(each.name for each in CONTENDERS)
    found = run(Job("broken-arm", 0, 300, 1, names))
    assert set(found) == set(names)
    assert found["oracle"]["total_cost"] == found["oracle"]["relative_regret"] == 0.0
    assert found["random"]["total_cost"] > 0.2
    assert all("lost_to_broken" in each for each in found.values())


def test_the_command_reports_and_draws(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(simulate, "RESULTS", tmp_path)
    monkeypatch.setattr(simulate, "REGIMES", (REGIMES[0],))
    monkeypatch.setattr(simulate, "HANDLES", (1, 2))
    simulate.main(["--seeds", "2", "--requests", "60", "--processes", "1", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "scheduler-simulation.json").read_text())
    assert set(printed["figures"]["busy"]["1 handles"]) == {each.name for each in CONTENDERS}
    assert {"commit", "cpu"} <= set(printed)
    assert [path.read_bytes()[:4] for path in sorted(tmp_path.glob("*.png"))] == [b"\x89PNG"] * 2


def test_jobs_see_every_regime_before_the_second_seed() -> None:
    todo = jobs(REGIMES, ["oracle"], seeds=range(2), requests=5)
    assert [job.regime for job in todo[: len(REGIMES)]] == [each.name for each in REGIMES]
    assert len(todo) == 2 * len(REGIMES)
