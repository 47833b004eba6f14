"""The reporter: batches, never blocks the caller, loses nothing at close."""

from __future__ import annotations

import threading
from typing import Any

from runvisor.supervisor.reporter import BATCH, Reporter


def test_everything_arrives_in_order_and_in_batches() -> None:
    batches: list[list[Any]] = []
    reporter = Reporter(batches.append)
    for number in range(1000):
        reporter.add(number)
    reporter.close()
    assert [item for batch in batches for item in batch] == list(range(1000))
    assert len(batches) < 1000


def test_a_full_batch_does_not_wait_for_the_interval() -> None:
    arrived = threading.Event()
    reporter = Reporter(lambda batch: arrived.set() if len(batch) >= BATCH else None)
    for number in range(2 * BATCH):
        reporter.add(number)
    assert arrived.wait(5)
    reporter.close()


def test_a_supervisor_that_does_not_answer_breaks_nothing() -> None:
    def fail(batch: list[Any]) -> None:
        raise ConnectionError

    reporter = Reporter(fail)
    reporter.add(1)
    reporter.close()
    reporter.close()
