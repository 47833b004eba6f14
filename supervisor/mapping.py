"""Many executions in order: a window of them at once, in batches where they are short."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from runvisor.policies.batches import BatchSize, Ending
from runvisor.policies.result import Result
from runvisor.policies.scheduling.arms import ARMS
from runvisor.policies.task import Task
from runvisor.policies.trust import OnExcess
from runvisor.policies.values import Value
from runvisor.supervisor.handle import Handle
from runvisor.supervisor.placement import Placed
from runvisor.supervisor.request import make_task

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


def over_inputs(
    handle: Handle,
    run: Callable[..., Result],
    code: str | bytes,
    inputs: Iterable[Value],
    language: str,
    max_parallel: int,
    options: Mapping[str, Any],
) -> Iterator[Result]:
    """Run one program on many inputs: in batches if all arms of its language take them, else one by one.

    Args:
        handle: Runs batches.
        run: Runs one, as `Supervisor.run` does.
        code: The program.
        inputs: One value per execution.
        language: As for `Supervisor.run`.
        max_parallel: How many requests at once.
        options: Of `Supervisor.run`, for each.
    """
    if "on_output" in options:
        return in_order(inputs, lambda value: run(code, language, inputs=value, **options), max_parallel)
    on_excess: OnExcess = options.get("on_excess", "refuse")
    task, reason = make_task(code, language, **{name: value for name, value in options.items() if name != "on_excess"})
    said: dict[str, Any] = {"on_excess": on_excess, "language_reason": reason}
    if all(arm.in_batches for arm in ARMS if task.language in arm.languages):
        return in_batches(inputs, partial(handle.run_batch, task, **said), max_parallel)
    max_parallel = max(1, max_parallel)
    tasks = map(task.with_inputs, inputs)

    def placed() -> Iterator[tuple[Task, Placed | None]]:
        # Those that begin at once are placed together; each later one when its turn comes, with those that run in view.
        first = list(itertools.islice(tasks, max_parallel))
        yield from zip(first, handle.place_many(first, **said), strict=True)
        yield from ((later, None) for later in tasks)

    return in_order(placed(), lambda pair: handle.run(pair[0], placed=pair[1], **said), max_parallel)
