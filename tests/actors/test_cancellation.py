"""Calling off: from any thread, once, and only by the owner."""

from __future__ import annotations

import os
import select
import threading

import pytest

from runvisor.actors.cancellation import Cancellation, Cancellations, execution_id
from runvisor.policies.errors import ProtocolError


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_a_poll_that_waits_for_it_wakes() -> None:
    with Cancellation() as cancellation:
        fd = cancellation.fileno()
        assert not readable(fd)
        thread = threading.Thread(target=cancellation.cancel)
        thread.start()
        assert select.select([fd], [], [], 20)[0] == [fd]
        thread.join()
        assert cancellation.cancelled


def test_a_descriptor_asked_for_later_is_readable_at_once() -> None:
    with Cancellation() as cancellation:
        cancellation.cancel()
        cancellation.cancel()
        assert readable(cancellation.fileno())


def test_it_holds_no_descriptor_unless_asked_and_none_when_closed() -> None:
    cancellation = Cancellation()
    cancellation.close()
    cancellation.close()
    cancellation.cancel()
    assert cancellation.cancelled
    with pytest.raises(ValueError, match="closed"):
        cancellation.fileno()
    other = Cancellation()
    fd = other.fileno()
    other.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_it_wakes_those_who_wait_on_a_condition_and_nobody_afterwards() -> None:
    woken: list[str] = []
    with Cancellation() as cancellation:
        with cancellation.waking(lambda: woken.append("too late")):
            pass
        with cancellation.waking(lambda: woken.append("in time")):
            cancellation.cancel()
            cancellation.cancel()
    assert woken == ["in time"]


def test_an_action_is_called_once_and_at_once_if_it_comes_late() -> None:
    calls: list[str] = []
    with Cancellation() as cancellation:
        cancellation.act(lambda: calls.append("first"))
        cancellation.cancel()
        cancellation.cancel()
        cancellation.act(lambda: calls.append("late"))
    assert calls == ["first", "late"]


def test_an_action_that_was_taken_back_is_not_called() -> None:
    calls: list[str] = []
    with Cancellation() as cancellation:
        cancellation.act(lambda: calls.append("never"))
        cancellation.act(None)
        cancellation.cancel()
    assert calls == []


def test_a_name_is_free_again_when_its_execution_has_ended() -> None:
    running = Cancellations()
    for _ in range(2):
        with running.admit("ada", "1") as cancellation:
            assert not cancellation.cancelled
        assert running.cancel("bob", "1") is False


def test_the_same_name_twice_is_refused_but_another_owner_may_use_it() -> None:
    running = Cancellations()
    with running.admit("ada", "1"), running.admit("bob", "1") as of_bob:
        with pytest.raises(ProtocolError), running.admit("ada", "1"):
            pass
        assert running.cancel("ada", "1") is True
        assert not of_bob.cancelled


def test_a_word_that_comes_early_counts_once() -> None:
    running = Cancellations()
    assert running.cancel("ada", "1") is False
    with running.admit("bob", "1") as cancellation:
        assert not cancellation.cancelled
    with running.admit("ada", "1") as cancellation:
        assert cancellation.cancelled
    with running.admit("ada", "1") as cancellation:
        assert not cancellation.cancelled


def test_early_words_are_bounded() -> None:
    running = Cancellations()
    for number in range(5000):
        running.cancel("eve", str(number))
    assert len(running._early) <= 1024


def test_executions_without_a_name_do_not_collide() -> None:
    running = Cancellations()
    with running.admit("ada", "") as first, running.admit("ada", "") as second:
        assert first is not second


@pytest.mark.parametrize("name", [7, b"x", "", "x" * 65, ["x"]])
def test_a_name_is_a_short_text(name: object) -> None:
    with pytest.raises(ProtocolError):
        execution_id(name)
