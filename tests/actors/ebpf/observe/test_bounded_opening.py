"""A file is opened in time or given up, and what was given up leaves nothing open."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator

import pytest

from runvisor.actors.ebpf.observe.bounded_opening import MAX_OPENING, open_within
from runvisor.policies.errors import PoolExhausted
from tests.actors.ebpf.observe.known import wait_until


@pytest.fixture
def answer() -> Iterator[threading.Event]:
    """Has the file systems answer, at the latest at the end of the test."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()
        assert wait_until(lambda: "observed-file" not in {thread.name for thread in threading.enumerate()})


def test_what_is_opened_too_late_is_closed(answer: threading.Event) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream:

        def late() -> int:
            answer.wait()
            return writing

        with pytest.raises(TimeoutError, match="has not answered"):
            open_within(late, 0.01)
        answer.set()
        assert select.select([stream], [], [], 20)[0], "the other end is open"
        assert stream.read() == b""


def test_no_more_threads_are_left_behind_than_may_be_and_their_places_come_back(answer: threading.Event) -> None:
    def never() -> int:
        answer.wait()
        raise OSError("gone")

    for _ in range(MAX_OPENING):
        with pytest.raises(TimeoutError):
            open_within(never, 0.0)
    left = [thread for thread in threading.enumerate() if thread.name == "observed-file"]
    assert len(left) == MAX_OPENING
    assert all(thread.daemon for thread in left), "the interpreter would wait for them"
    with pytest.raises(PoolExhausted, match="do not answer"):
        open_within(never)
    answer.set()
    for thread in left:
        thread.join()
    os.close(open_within(lambda: os.open("/", os.O_RDONLY)))
