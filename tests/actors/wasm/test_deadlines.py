"""Deadlines on a clock of ours: who is woken, and when."""

from __future__ import annotations

import threading
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.actors.wasm.deadlines import Deadlines

_PATIENCE_S: Final = 10.0


def test_only_a_run_whose_time_is_up_may_not_go_on() -> None:
    now = 100.0
    deadlines = Deadlines(lambda: None, clock=lambda: now)
    short, long = deadlines.token(), deadlines.token()
    deadlines.begin(short, 1.0)
    deadlines.begin(long, 5.0)
    now = 101.0
    assert (deadlines.may_go_on(short), deadlines.may_go_on(long)) == (False, True)
    assert (deadlines.left_s(short), deadlines.left_s(long)) == (0.0, 4.0)


def test_a_run_that_nobody_began_may_not_go_on() -> None:
    deadlines = Deadlines(lambda: None)
    assert not deadlines.may_go_on(deadlines.token())
    assert not deadlines.may_go_on(0)


def test_it_is_calm_when_no_two_ran_at_once_for_a_while() -> None:
    now = 100.0
    deadlines = Deadlines(lambda: None, clock=lambda: now)
    first, second = deadlines.token(), deadlines.token()
    assert deadlines.is_calm(0, 1.0)
    deadlines.begin(first, 10.0)
    assert (deadlines.is_calm(0, 1.0), deadlines.is_calm(1, 1.0)) == (False, True)
    deadlines.begin(second, 10.0)
    deadlines.end(first)
    deadlines.end(second)
    assert not deadlines.is_calm(0, 1.0)
    now += 1.0
    assert deadlines.is_calm(0, 1.0)


def test_a_run_that_did_not_hear_that_its_time_is_up_is_told_again() -> None:
    heard_thrice = threading.Event()
    moves: list[None] = []

    def move() -> None:
        moves.append(None)
        if len(moves) == 3:
            heard_thrice.set()

    deadlines = Deadlines(move)
    deadlines.start()
    token = deadlines.token()
    deadlines.begin(token, 0.001)
    assert heard_thrice.wait(_PATIENCE_S)
    deadlines.end(token)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.001, 0.05), min_size=1, max_size=8))
def test_every_deadline_moves_the_epochs(timeouts_s: list[float]) -> None:
    """Each run waits, as guest code would, until a moved epoch has it ask and it is told to stop."""
    moved = threading.Condition()

    def move() -> None:
        with moved:
            moved.notify_all()

    deadlines = Deadlines(move)
    deadlines.start()
    tokens = [deadlines.token() for _ in timeouts_s]
    with moved:
        for token, timeout_s in zip(tokens, timeouts_s, strict=True):
            deadlines.begin(token, timeout_s)
        assert moved.wait_for(lambda: not any(map(deadlines.may_go_on, tokens)), _PATIENCE_S)


def test_a_shorter_run_that_begins_later_is_not_missed() -> None:
    moved = threading.Event()
    deadlines = Deadlines(moved.set)
    deadlines.start()
    deadlines.begin(deadlines.token(), 1000.0)
    deadlines.begin(deadlines.token(), 0.01)
    assert moved.wait(_PATIENCE_S)
