"""The oracle: it never sees what it is scored with."""

from __future__ import annotations

import pytest

from benchmarks.scheduler.real.oracle import Knowledge
from benchmarks.scheduler.real.recording import Recording
from benchmarks.scheduler.real.statics import best_order, best_table
from tests.benchmarks.scheduler.real.recorded import ABOUT, recording

SLOW = ("js sieve", 0, "v8/isolate")
OTHER = ("js sieve", 0, "wasm/quickjs")


def changed(half: int) -> Knowledge:
    """Return what is known when one arm is a hundred times slower in one half of its runs."""
    found = {key: list(runs) for key, runs in recording().cells().items()}
    for place, run in enumerate(found[SLOW]):
        if place % 2 == half:
            found[SLOW][place] = type(run)(run.key, 1.0, run.service_s, run.wait_s)
    return Knowledge.of(Recording(ABOUT, tuple(run for runs in found.values() for run in runs)))


def test_it_chooses_by_one_half() -> None:
    assert changed(0).best("js sieve", 0) == "wasm/quickjs"
    assert changed(1).best("js sieve", 0) == changed(1).best("js sieve", 1) == "v8/isolate"


def test_it_is_scored_by_the_other() -> None:
    assert changed(0).true == Knowledge.of(recording()).true
    assert changed(1).true[SLOW].mean_s == pytest.approx(0.999)
    assert changed(1).known == Knowledge.of(recording()).known


def test_samples_are_those_of_the_scored_half() -> None:
    knowledge = Knowledge.of(recording())
    assert len(knowledge.samples[SLOW]) == 8
    assert sum(knowledge.samples[SLOW]) / 8 == pytest.approx(knowledge.true[SLOW].mean_s)


def test_a_program_is_contested_if_every_arm_is_clearly_worse_somewhere() -> None:
    slow_at_first = {("js sieve", 0, "v8/isolate"): 0.012}
    assert Knowledge.of(recording(slow_at_first)).contested() == frozenset()
    both = {**slow_at_first, ("js sieve", 2, "wasm/quickjs"): 0.012}
    assert Knowledge.of(recording(both)).contested() == {"js sieve"}
    hardly = {**slow_at_first, ("js sieve", 2, "wasm/quickjs"): 0.0102}
    assert Knowledge.of(recording(hardly)).contested() == frozenset()


def test_the_best_rule_and_table_are_those_that_cost_least_together() -> None:
    times_s = {("js sieve", 2, "v8/isolate"): 0.5, ("js fibonacci", 2, "wasm/quickjs"): 0.1}
    knowledge = Knowledge.of(recording(times_s))
    order = best_order(knowledge).order
    assert order.index("wasm/quickjs") < order.index("v8/isolate")
    arms = set(best_table(knowledge).arm_of.values())
    assert {"wasm/quickjs", "v8/isolate"} <= arms
