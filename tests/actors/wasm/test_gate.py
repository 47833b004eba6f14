"""A bounded number of places and a bounded queue before them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.runtime import Load, PoolSize
from runvisor.actors.wasm.gate import Gate
from runvisor.policies.errors import Cancelled, PoolExhausted, QueueFull


@contextmanager
def place(gate: Gate, cancellation: Cancellation | None = None) -> Iterator[None]:
    gate.take(cancellation)
    try:
        yield
    finally:
        gate.give_back()


def wait_for(gate: Gate, waiting: int) -> None:
    deadline = time.monotonic() + 10
    while gate.load().waiting != waiting:
        assert time.monotonic() < deadline


def test_a_place_is_given_back_also_after_an_error() -> None:
    gate = Gate(PoolSize(maximum=1))
    with pytest.raises(ZeroDivisionError), place(gate):
        raise ZeroDivisionError
    assert gate.load() == Load(idle=1, busy=0, waiting=0)


def test_a_caller_waits_for_a_place_and_gets_it() -> None:
    gate = Gate(PoolSize(maximum=1, wait_s=10.0))
    got = threading.Event()

    def enter() -> None:
        with place(gate):
            got.set()

    with place(gate):
        thread = threading.Thread(target=enter)
        thread.start()
        wait_for(gate, 1)
        assert not got.is_set()
    thread.join(10)
    assert got.is_set()


def test_a_caller_does_not_wait_for_ever() -> None:
    gate = Gate(PoolSize(maximum=1, wait_s=0.01))
    with place(gate), pytest.raises(PoolExhausted) as caught, place(gate):
        pass
    assert caught.value.details["retry_after_s"]
    assert gate.load().waiting == 0


def test_the_queue_is_bounded() -> None:
    gate = Gate(PoolSize(maximum=1, wait_s=10.0, max_waiting=1))

    def enter() -> None:
        with place(gate):
            pass

    thread = threading.Thread(target=enter)
    with place(gate):
        thread.start()
        wait_for(gate, 1)
        with pytest.raises(QueueFull), place(gate):
            pass
    thread.join(10)
    assert gate.load() == Load(idle=1, busy=0, waiting=0)


def test_a_caller_who_is_called_off_waits_no_longer_and_takes_no_place() -> None:
    gate = Gate(PoolSize(maximum=1, wait_s=600.0))
    caught: list[Exception] = []

    def enter() -> None:
        try:
            gate.take(cancellation)
        except Cancelled as error:
            caught.append(error)

    with Cancellation() as cancellation, place(gate):
        thread = threading.Thread(target=enter)
        thread.start()
        wait_for(gate, 1)
        cancellation.cancel()
        thread.join(10)
        assert len(caught) == 1
    assert gate.load() == Load(idle=1, busy=0, waiting=0)
