"""What the pool makes of an observing process that lies, and of any entries at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.ebpf.observe import process
from runvisor.actors.ebpf.observe.observers import PROGRAMS
from runvisor.actors.ebpf.observe.process import ObservingProcess
from runvisor.actors.ebpf.observe.program import Entry
from runvisor.actors.ebpf.observe.syscalls import SYSCALLS
from runvisor.actors.jail.child import Child
from runvisor.actors.process_birth import process_birth
from runvisor.policies.errors import MemoryLimitExceeded, SpawnFailed, WorkerCrashed
from runvisor.policies.observations import ObservationRequest, ObservedTable

CORES = 2
KEY, VALUE = bytes(SYSCALLS.key_bytes), bytes(SYSCALLS.value.size * CORES)
DONE = {"op": "done", "ended": "time", "lost": 0}
MANY = SYSCALLS.entries + 1
FOLLOWING: Message = {"op": "following", "new": 1}
BEGUN: tuple[Message, ...] = ({"op": "attached"}, FOLLOWING, FOLLOWING)
ENTRY = {"op": "entries", "keys": KEY, "values": VALUE}


class Liar:
    """A peer that answers what it is told to, at once, in place of an executor."""

    def __init__(self, words: Sequence[Message]) -> None:
        ours, self._end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.channel, self._peer = FrameSocket(ours), FrameSocket(self._end)
        self.stderr_fd, self._stderr = os.pipe()
        os.set_blocking(self.stderr_fd, False)
        self._thread = threading.Thread(target=self._say, args=(words,))
        self._thread.start()

    def exit(self, timeout_s: float) -> None:
        del timeout_s

    def close(self) -> list[Message]:
        """End it, and return what it was told."""
        self.channel.close()  # a thread that still sends gives up
        self._thread.join()
        told: list[Message] = []
        with contextlib.suppress(OSError):
            while (message := self._peer.receive()) is not None:
                told.append(message)
        self._peer.close()
        for fd in (self.stderr_fd, self._stderr):
            os.close(fd)
        return told

    def _say(self, words: Sequence[Message]) -> None:
        with contextlib.suppress(OSError):
            for word in words:
                self._peer.send(word)
            self._end.shutdown(socket.SHUT_WR)


@contextmanager
def liar(*words: Message, told: list[Message] | None = None) -> Iterator[ObservingProcess]:
    peer = Liar(words)
    try:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as idle:
            request = ObservationRequest("syscalls", idle.pid, 5.0)
            yield ObservingProcess(cast(Child, peer), request, process_birth(idle.pid), SYSCALLS, CORES)
    finally:
        heard = peer.close()
        if told is not None:
            told += heard


def run(one: ObservingProcess) -> ObservedTable:
    codes = {hook.function: b"" for hook in SYSCALLS.hooks} | dict.fromkeys(("rv_on_fork", "rv_on_exec", "rv_on_exit"))
    with Cancellation() as cancellation:
        return one.run(cast(dict[str, bytes], codes), cancellation, lambda: None)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (({"op": "entries", "keys": KEY[1:], "values": VALUE},), "another size"),
        (({"op": "entries", "keys": KEY, "values": VALUE + b"x"},), "another size"),
        (({"op": "entries", "keys": KEY * 2, "values": VALUE},), "another size"),
        (({"op": "entries", "keys": "text", "values": VALUE},), "answered with entries"),
        (({"op": "entries"},), "answered with entries"),
        (({"op": "entries", "keys": KEY * MANY, "values": VALUE * MANY},), "more entries"),
        ((ENTRY,) * MANY, "more entries"),
        (({"op": "who knows"},), "who knows"),
        (({},), "None"),
        (({"op": "entries", "keys": b"\0" * (5 << 20), "values": b""},), "a frame of"),
        (({"op": "entries", "keys": [[]] * 5000, "values": b""},), "report"),
    ],
)
def test_a_table_that_cannot_be_is_an_error_and_not_a_table(words: tuple[Message, ...], says: str) -> None:
    with liar(*BEGUN, *words, DONE) as one, pytest.raises(WorkerCrashed, match=says):
        run(one)


def test_a_table_without_an_end_is_none() -> None:
    with liar(*BEGUN, ENTRY) as one, pytest.raises(WorkerCrashed, match="died"):
        run(one)


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ({"op": "refused", "log": "no" * 10000}, SpawnFailed),
        ({"op": "failed", "what": "bpf: not permitted"}, SpawnFailed),
        ({"op": "no memory"}, MemoryLimitExceeded),
        ({"op": "done"}, WorkerCrashed),
    ],
)
def test_one_that_does_not_begin_says_why(word: Message, error: type[Exception]) -> None:
    with liar(word) as one, pytest.raises(error):
        run(one)


@pytest.mark.parametrize(
    "last", [{"op": "done"}, {"op": "done", "ended": [], "lost": "many"}, {**DONE, "lost": 2**64 - 1}]
)
def test_invented_counts_and_ends_do_no_harm(last: Message) -> None:
    full = {"op": "entries", "keys": b"\xff" * len(KEY), "values": b"\xff" * len(VALUE)}
    with liar(*BEGUN, full, last) as one:
        table = run(one)
    assert ObservedTable.from_wire(table.to_wire()) == table


def test_threads_that_ended_before_they_were_followed_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    listings = iter(
        [
            {1, 2, 3},  # are followed
            {1},  # the others have ended, and are forgotten
            {1, 3},  # a new thread of the target got the number 3, and is followed again
            {1, 3},
        ]
    )
    monkeypatch.setattr(process, "threads_of", lambda pid, *, follow: frozenset(next(listings)))
    told: list[Message] = []
    following = [FOLLOWING] * 4
    with liar({"op": "attached"}, *following, DONE, told=told) as one:
        run(one)
    orders = [(order["threads"], order["gone"]) for order in told if order["op"] == "follow"]
    assert orders == [([1, 2, 3], []), ([], [2, 3]), ([3], [])]
    assert next(listings, None) is None


def test_a_process_that_always_starts_threads_is_followed_when_the_kernel_follows_them_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = itertools.count(2)
    monkeypatch.setattr(process, "threads_of", lambda pid, *, follow: frozenset({1, next(numbers)}))
    told: list[Message] = []
    all_known = {"op": "following", "new": 0}
    with liar({"op": "attached"}, FOLLOWING, all_known, all_known, all_known, all_known, DONE, told=told) as one:
        run(one)
    orders = [(order["threads"], order["gone"]) for order in told if order["op"] == "follow"]
    assert orders[:2] == [([1, 2], []), ([3], [])]
    assert orders[2] == ([], [2]), "whoever was not listed at last has ended"


@given(st.data())
def test_any_entries_make_rows_that_travel(data: st.DataObject) -> None:
    program = PROGRAMS[data.draw(st.sampled_from(sorted(PROGRAMS)))]
    key = st.binary(min_size=program.key_bytes, max_size=program.key_bytes)
    value = st.binary(min_size=program.value.size, max_size=program.value.size)
    entries: list[Entry] = data.draw(
        st.lists(st.tuples(key, st.lists(value, min_size=CORES, max_size=CORES)), max_size=5)
    )
    rows = program.rows(entries)
    assert len(rows) <= max(64, len(entries))
    for row in rows:
        assert len(row) == len(program.columns)
        for cell, column in zip(row, program.columns, strict=True):
            assert isinstance(cell, str) == (column.kind == "text")
            if isinstance(cell, str):
                cell.encode()
