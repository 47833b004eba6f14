"""What a pool says of the work before it: a sum of hints, none of which is believed further than it can be true."""

from __future__ import annotations

import heapq
import math
import random
import threading
import time
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.backlog import Backlog, expected_s
from runvisor.actors.channel.load_page import LoadPage, LoadReading
from runvisor.actors.runtime import Load
from runvisor.policies.permissions import Permissions
from runvisor.policies.trust import Grant, Trust

GRANT = Grant("tester", Trust.UNTRUSTED, Permissions(timeout_s=2.0))


@given(st.one_of(st.floats(), st.integers(), st.text(), st.none(), st.booleans(), st.lists(st.integers())))
def test_no_hint_counts_more_than_the_limit_or_less_than_nothing(said: object) -> None:
    assert 0.0 <= expected_s({"expected_s": said}, GRANT) <= 2.0


def test_what_many_requests_expect_adds_up_and_nothing_stays_behind() -> None:
    backlog = Backlog(lambda: Load(busy=8))
    inside, over = threading.Barrier(9, timeout=20), threading.Barrier(9, timeout=20)

    def request() -> None:
        with backlog.expecting(0.1, 3) as expectation:
            expectation.one_ended(0.1)
            inside.wait()
            over.wait()

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    inside.wait()
    assert backlog.load().backlog_s == pytest.approx(8 * 2 * 0.1)
    over.wait()
    for thread in threads:
        thread.join()
    assert backlog.load().backlog_s == 0.0


def test_a_request_that_fails_is_expected_no_more() -> None:
    backlog = Backlog(Load)
    with pytest.raises(OSError, match="gone"), backlog.expecting(0.5, 10):
        raise OSError("gone")
    assert backlog.load().backlog_s == 0.0


def test_what_new_instances_take_is_learned_while_callers_wait_and_only_then() -> None:
    now, waiting = 1.0, 1
    backlog = Backlog(lambda: Load(idle=0, busy=2, waiting=waiting), clock=lambda: now)

    def run(executions: int, every_s: float) -> None:
        nonlocal now
        for _ in range(executions):
            with backlog.expecting(0.01) as expectation:
                now += every_s
                expectation.one_ended(0.01)

    run(200, 0.05)  # two places and an end each 50 ms, 10 ms of it running: a place is taken for 90 ms more
    assert backlog.load().turnaround_s == pytest.approx(0.09, rel=0.01)
    with backlog.expecting(0.01, 2):
        assert backlog.load().backlog_s == pytest.approx(2 * (0.01 + 0.09), rel=0.01)
    waiting = 0
    now += 60.0
    assert backlog.load().turnaround_s == pytest.approx(0.09 / 2, rel=0.01), "a minute on it may be otherwise"
    run(60, 60.0)
    waiting = 1
    assert backlog.load().turnaround_s < 1e-6, "nor does the next caller that waits bring it back"
    run(1, 1.0)
    assert backlog.load().turnaround_s < 1e-6


@pytest.mark.parametrize("places", [4, 16])
def test_executions_that_do_not_end_in_turn_take_no_longer_for_that(places: int) -> None:
    now, draw = 0.0, random.Random(1)
    backlog = Backlog(lambda: Load(busy=places, waiting=1), clock=lambda: now)
    running = [(1.0 + draw.uniform(0.0, 60.0), 60.0) for _ in range(places)]
    believed_s = []
    for _ in range(400):
        now, service_s = heapq.heappop(running)
        with backlog.expecting(60.0) as expectation:
            expectation.one_ended(service_s)
        believed_s.append(backlog.load().turnaround_s)
        next_s = draw.uniform(50.0, 70.0)
        heapq.heappush(running, (now + next_s, next_s))  # in its place at once: the turnaround is 0
    assert fmean(believed_s) < 3.0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1, 10**400, 1e300, True, "3", None])
@pytest.mark.parametrize("name", Load().to_wire())
def test_a_load_that_no_pool_can_have_is_none(name: str, wrong: object) -> None:
    assert Load.from_wire({**Load(3, 1, 2, 0.5).to_wire(), name: wrong}) is None


def test_clients_of_the_node_see_each_change_and_what_follows_from_it(tmp_path: Path) -> None:
    busy, settled = 1, threading.Event()

    def load() -> Load:
        if busy == 0:
            settled.set()
        return Load(idle=2, busy=busy)

    backlog = Backlog(load)
    backlog.show_on(LoadPage(tmp_path))
    reading = LoadReading.beside(tmp_path / "pool.sock")
    assert reading is not None
    try:
        with backlog.expecting(0.25):
            assert reading.now()[0] == Load(idle=2, busy=1, backlog_s=0.25)
        assert reading.now()[0].backlog_s == 0.0
        busy = 0  # as when the instance has been destroyed, a moment after the end
        assert settled.wait(20)
        deadline = time.monotonic() + 20
        while reading.now()[0].busy:
            assert time.monotonic() < deadline
    finally:
        backlog.close()


def test_a_pool_without_a_page_is_read_by_its_answers_only(tmp_path: Path) -> None:
    assert LoadReading.beside(tmp_path / "pool.sock") is None
    (tmp_path / "load").touch()
    assert LoadReading.beside(tmp_path / "pool.sock") is None
