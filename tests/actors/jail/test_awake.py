"""An end that expects an answer looks for it for a moment, and then sleeps."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator

import pytest

from runvisor.actors.jail.awake import AWAKE_S, Lookout


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, select.poll]]:
    ours, theirs = socket.socketpair()
    poll = select.poll()
    poll.register(theirs, select.POLLIN)
    with ours, theirs:
        yield ours, poll


def test_what_is_there_is_found_at_once(ends: tuple[socket.socket, select.poll]) -> None:
    ours, poll = ends
    ours.send(b"x")
    assert [happened for _, happened in Lookout().look(poll)] == [select.POLLIN]


def test_nothing_is_found_where_nothing_comes_and_little_time_goes_into_looking(
    ends: tuple[socket.socket, select.poll],
) -> None:
    _, poll = ends
    lookout = Lookout()
    began = time.thread_time()
    assert [lookout.look(poll) for _ in range(10)] == [[]] * 10
    assert time.thread_time() - began < 10 * AWAKE_S * 5


def test_who_lost_the_core_while_looking_sleeps_at_once_for_a_while(
    ends: tuple[socket.socket, select.poll], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, poll = ends
    lookout = Lookout()
    monkeypatch.setattr("os.sched_yield", lambda: select.select([], [], [], 0.001))
    assert lookout.look(poll) == []
    ours.send(b"x")
    assert lookout.look(poll) == []
    assert poll.poll(0)
