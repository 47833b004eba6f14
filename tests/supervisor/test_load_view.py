"""A handle's view of a pool's load: no burst follows one stale word."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from runvisor.actors.runtime import Load
from runvisor.supervisor.load_view import LoadView

FOUR = Load(idle=4)


def test_each_of_a_burst_sees_those_before_it() -> None:
    view = LoadView(FOUR, at=1.0)
    with ExitStack() as burst:
        for sent in range(64):
            load = view.now(1.0)
            assert load.busy + load.waiting == sent
            assert load.backlog_s == pytest.approx(sent * 0.1)
            burst.enter_context(view.sending(0.1))
    assert view.now(1.01).busy == 4  # what is answered was in no word of the pool's yet


def test_a_word_that_came_before_what_was_sent_hides_nothing_of_it() -> None:
    view = LoadView(FOUR, at=1.0)
    with ExitStack() as burst:
        for _ in range(10):
            burst.enter_context(view.sending(0.1))
        view.note(Load(idle=3, busy=1), at=1.1)
        load = view.now(1.1)
        assert (load.busy + load.waiting, load.backlog_s) == (10, pytest.approx(1.0))


def test_what_others_sent_counts_beside_ones_own() -> None:
    view = LoadView(FOUR, at=1.0)
    view.note(Load(busy=4, waiting=20, backlog_s=2.4), at=1.1)
    with view.sending(0.1):
        load = view.now(1.1)
        assert (load.waiting, load.backlog_s) == (21, pytest.approx(2.5))


def test_what_an_execution_takes_beyond_its_running_counts_for_what_is_on_its_way() -> None:
    view = LoadView(Load(idle=2, turnaround_s=0.05), at=1.0)
    with view.sending(0.01), view.sending(0.01):
        assert view.now(1.0).backlog_s == pytest.approx(2 * 0.06)


def test_an_older_word_does_not_replace_a_newer_one() -> None:
    view = LoadView(FOUR, at=2.0)
    view.note(Load(busy=4, waiting=9), at=1.0)
    assert view.now(2.0) == FOUR


def test_an_old_word_says_since_when_it_holds_and_is_dropped_beside_what_is_known() -> None:
    view = LoadView(Load(busy=4, waiting=9), at=1.0)
    assert view.now(1.0).at == 0
    assert view.now(11.0).at > 0
    with view.sending(0.1):
        load = view.now(11.0)
        assert (load.idle, load.busy, load.waiting) == (3, 1, 0)


def test_a_pool_on_this_node_is_never_out_of_date() -> None:
    shown = [(FOUR, 1.0)]
    view = LoadView(FOUR, at=1.0, reading=lambda: shown[-1])
    shown.append((Load(busy=4, waiting=7), 1.5))
    assert view.now(99.0) == Load(busy=4, waiting=7)
