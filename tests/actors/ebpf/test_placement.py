"""A caller and its executor share a core for a short run, and nothing of that outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from runvisor.actors.ebpf.placement import Placement

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core only")


@pytest.fixture
def other() -> Iterator[int]:
    """A process that waits."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.kill()
    process.communicate()


def test_both_are_on_one_core_and_the_caller_is_free_again_afterwards(other: int) -> None:
    before = os.sched_getaffinity(0)
    placement = Placement(other)
    with placement.on_one_core(True):
        assert len(os.sched_getaffinity(0)) == 1
        assert os.sched_getaffinity(0) == os.sched_getaffinity(other)
    assert os.sched_getaffinity(0) == before


def test_the_caller_is_free_again_after_a_failure(other: int) -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(KeyError), Placement(other).on_one_core(True):
        raise KeyError
    assert os.sched_getaffinity(0) == before


def test_a_long_run_leaves_both_free(other: int) -> None:
    before = os.sched_getaffinity(0)
    placement = Placement(other)
    with placement.on_one_core(True):
        pass
    with placement.on_one_core(False):
        assert os.sched_getaffinity(0) == before
        assert os.sched_getaffinity(other) == before


def test_a_caller_with_a_core_of_its_own_keeps_it(other: int) -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    os.sched_setaffinity(0, {core})
    try:
        with Placement(other).on_one_core(True):
            assert os.sched_getaffinity(other) == {core}
        assert os.sched_getaffinity(0) == {core}
    finally:
        os.sched_setaffinity(0, before)


def test_an_executor_that_may_not_be_placed_is_left_where_it_is() -> None:
    before = os.sched_getaffinity(0)
    gone = subprocess.Popen(["true"])
    gone.wait()
    with Placement(gone.pid).on_one_core(True):
        assert os.sched_getaffinity(0) == before
