"""Windows and batches of a map."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from runvisor.policies.errors import InvalidTask
from runvisor.policies.result import Isolation, Result
from runvisor.supervisor.mapping import in_batches, in_order


def test_it_takes_no_more_than_it_is_about_to_do() -> None:
    taken = itertools.count()
    results = in_order((next(taken) for _ in itertools.count()), lambda n: n, max_parallel=2)
    assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    results.close()  # type: ignore[attr-defined]
    assert next(taken) < 20


def test_pieces_run_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=20)
    assert len(list(in_order(range(3), lambda _: meeting.wait(), max_parallel=3))) == 3


def test_what_a_piece_raises_comes_when_its_turn_comes() -> None:
    def halve(n: int) -> float:
        return 1 / (n - 1)

    results = in_order(range(3), halve, max_parallel=1)
    assert next(results) == -1
    with pytest.raises(ZeroDivisionError):
        next(results)


def run_echo(sizes: list[int]) -> Any:
    def run(batch: Sequence[Any]) -> list[Any]:
        sizes.append(len(batch))
        return [
            InvalidTask("bad", "inputs") if value == "bad" else Result(Isolation("none"), value=value)
            for value in batch
        ]

    return run


def test_batches_grow_where_executions_are_short_and_keep_their_order() -> None:
    sizes: list[int] = []
    results = in_batches(range(2000), run_echo(sizes), max_parallel=2)
    assert [result.value for result in results] == list(range(2000))
    assert sizes[0] == 1
    assert max(sizes) > 8


def test_an_input_that_is_refused_raises_in_its_turn() -> None:
    results = in_batches([1, "bad", 3], run_echo([]), max_parallel=1)
    assert next(results).value == 1
    with pytest.raises(InvalidTask):
        next(results)
