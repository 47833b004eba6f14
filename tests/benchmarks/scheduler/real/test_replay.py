"""Replays: real samples, the same ones for all policies of a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.scheduler.real.comparison import compare
from benchmarks.scheduler.real.figures import figures_of
from benchmarks.scheduler.real.policies import ORACLE, OURS, RULES, TABLE
from benchmarks.scheduler.real.traces import ARMS, NOISE_SPAN, SETTINGS, Replays, Setting, slowed_runtime
from benchmarks.scheduler.real.workload import HELD_OUT, PROGRAMS
from benchmarks.scheduler.simulator import Simulation
from runvisor.policies.scheduling.baselines.preference import PreferenceScheduler
from tests.benchmarks.scheduler.real.recorded import recording

TIMES_S = {
    (program, size, arm): 0.002 * (1 + place) * (1 + size if place else 3 - size)
    for program in ("js fibonacci", "js sieve")
    for size in range(3)
    for place, arm in enumerate(("v8/isolate", "wasm/quickjs"))
}


@pytest.fixture(scope="module")
def replays() -> Replays:
    return Replays(recording(TIMES_S))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_seed_gives_the_same_trace_and_the_same_figures(replays: Replays, setting: Setting) -> None:
    figures = []
    traces = [replays.draw(setting, 3, 400) for _ in range(2)]
    for trace in traces:
        run = Simulation(trace.workload, PreferenceScheduler()).run()
        figures.append(str(figures_of(trace, run, replays.contested, setting)))
    assert figures[0] == figures[1]
    other = replays.draw(setting, 4, 400)
    assert not np.array_equal(traces[0].workload.arrivals_s, other.workload.arrivals_s)


def test_every_time_is_a_sample_of_that_task_on_that_arm(replays: Replays) -> None:
    trace = replays.draw(SETTINGS[0], 1, 200)
    for request, (program, size) in enumerate(zip(trace.programs, trace.sizes, strict=True)):
        for place, arm in enumerate(ARMS):
            if trace.workload.eligible[request, place]:
                samples = replays.quiet.samples[program, size, arm.name]
                assert trace.workload.service_s[request, place] in samples


def test_held_out_families_come_after_the_training_only(replays: Replays) -> None:
    trace = replays.draw(SETTINGS[0], 1, 600)
    is_new = np.array([PROGRAMS[name].family in HELD_OUT for name in trace.programs])
    assert not is_new[~trace.scored].any()
    assert is_new[trace.scored].any()


def test_a_slowed_runtime_is_slower_on_all_its_arms_and_no_other(replays: Replays) -> None:
    calm, slow = (replays.draw(Setting("same", 0.2, noise), 2, 600).workload for noise in ("", "slow"))
    place = np.arange(600) / 600
    within = (place >= NOISE_SPAN[0]) & (place < NOISE_SPAN[1])
    columns = np.array([arm.runtime == slowed_runtime(2) for arm in ARMS])
    factor = np.ones((600, len(ARMS)))
    factor[np.ix_(within, columns)] = 3.0
    assert np.allclose(slow.service_s, calm.service_s * factor)
    assert np.allclose(slow.mean_s, calm.mean_s * factor)


def test_the_oracle_leaves_nothing_on_a_broken_arm(replays: Replays) -> None:
    setting = next(each for each in SETTINGS if each.noise == "broken")
    trace = replays.draw(setting, 1, 600)
    oracle = Simulation(trace.workload, None).run()
    figures = figures_of(trace, oracle, replays.contested, setting)
    assert figures["lost"] == figures["relative_regret"] == 0
    stubborn = Simulation(trace.workload, PreferenceScheduler()).run()
    assert figures_of(trace, stubborn, replays.contested, setting)["lost"] > 0


def test_a_comparison_closes_the_whole_gap_for_the_oracle_and_nothing_for_the_rule(tmp_path: Path) -> None:
    recording(TIMES_S).save(tmp_path / "recording")
    steps: list[tuple[int, int]] = []
    comparison = compare(
        tmp_path / "recording",
        seeds=2,
        requests=300,
        settings=["calm"],
        policies=[OURS],
        told=lambda done, of: steps.append((done, of)),
    )
    rows = comparison.summary("calm")
    assert rows.keys() == {ORACLE, OURS, *RULES, TABLE}
    assert rows[ORACLE]["closed"].mean == 1
    assert rows[comparison.best_rule("calm")]["closed"].mean == 0
    assert steps == [(1, 2), (2, 2)]
    assert any("gap closed" in bar for bar, _, _ in comparison.bars())
