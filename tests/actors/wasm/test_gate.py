"""A bounded number of places and a bounded queue before them."""

from __future__ import annotations

import threading
import time

import pytest

from runvisor.actors.runtime import Load, PoolSize
from runvisor.actors.wasm.gate import Gate
from runvisor.policies.errors import PoolExhausted, QueueFull


def wait_for(gate: Gate, waiting: int) -> None:
    deadline = time.monotonic() + 10
    while gate.load().waiting != waiting:
        assert time.monotonic() < deadline


def test_a_place_is_given_back_also_after_an_error() -> None:
    gate = Gate(PoolSize(maximum=1))
    with pytest.raises(ZeroDivisionError), gate:
        raise ZeroDivisionError
    assert gate.load() == Load(idle=1, busy=0, waiting=0)


def test_a_caller_waits_for_a_place_and_gets_it() -> None:
    gate = Gate(PoolSize(maximum=1, wait_s=10.0))
    got = threading.Event()

    def enter() -> None:
        with gate:
            got.set()

    with gate:
        thread = threading.Thread(target=enter)
        thread.start()
        wait_for(gate, 1)
        assert not got.is_set()
    thread.join(10)
    assert got.is_set()


def test_a_caller_does_not_wait_for_ever() -> None:
    gate = Gate(PoolSize(maximum=1, wait_s=0.01))
    with gate, pytest.raises(PoolExhausted) as caught, gate:
        pass
    assert caught.value.details["retry_after_s"]
    assert gate.load().waiting == 0


def test_the_queue_is_bounded() -> None:
    gate = Gate(PoolSize(maximum=1, wait_s=10.0, max_waiting=1))

    def enter() -> None:
        with gate:
            pass

    thread = threading.Thread(target=enter)
    with gate:
        thread.start()
        wait_for(gate, 1)
        with pytest.raises(QueueFull), gate:
            pass
    thread.join(10)
    assert gate.load() == Load(idle=1, busy=0, waiting=0)
