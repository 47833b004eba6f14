"""Many executions in order: a window of them at once, in batches where they are short."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from runvisor.policies.batches import BatchSize, Ending
from runvisor.policies.result import Result
from runvisor.policies.values import Value

T = TypeVar("T")
R = TypeVar("R")
_AHEAD: Final = 2
"""Pieces of work begun for each that runs: enough that no thread waits for the caller."""


def in_order(work: Iterable[T], do: Callable[[T], R], max_parallel: int) -> Iterator[R]:
    """Do pieces of work side by side, and yield what comes of them in their order.

    Takes no more of ``work`` than is about to be done, so it may be endless.
    Leaving the iteration waits for what has begun, and begins nothing more.

    Example:
        >>> list(in_order(range(3), lambda n: n * n, max_parallel=2))
        [0, 1, 4]
    """
    max_parallel = max(1, max_parallel)
    pieces = iter(work)
    with ThreadPoolExecutor(max_parallel, thread_name_prefix="runvisor-map") as threads:
        begun: deque[Future[R]] = deque()
        try:
            while True:
                room = max_parallel * _AHEAD - len(begun)
                begun.extend(threads.submit(do, piece) for piece in itertools.islice(pieces, room))
                if not begun:
                    return
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()


def in_batches(
    inputs: Iterable[Value], run: Callable[[Sequence[Value]], list[Ending]], max_parallel: int
) -> Iterator[Result]:
    """Run one program on many inputs, as many in one request as take a moment, and yield the results in order.

    Args:
        inputs: One value per execution.
        run: Runs a batch.
        max_parallel: How many batches at once.

    Raises:
        RunvisorError: What an execution would have raised, when its turn comes.
    """
    size = BatchSize()
    lock = threading.Lock()

    def timed(batch: list[Value]) -> list[Ending]:
        began = time.perf_counter()
        endings = run(batch)
        with lock:
            size.note(inputs=len(batch), seconds=time.perf_counter() - began)
        return endings

    values = iter(inputs)

    def batches() -> Iterator[list[Value]]:
        while batch := list(itertools.islice(values, size.inputs)):
            yield batch

    for endings in in_order(batches(), timed, max_parallel):
        for ending in endings:
            if not isinstance(ending, Result):
                raise ending
            yield ending
