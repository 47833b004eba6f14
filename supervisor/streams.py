"""Following an execution: what it prints as it comes, and its result last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from queue import SimpleQueue
from typing import TypeAlias

from runvisor.policies.result import Result
from runvisor.supervisor.execution import Execution, OnOutput, Output

Begin: TypeAlias = Callable[[OnOutput], Execution]
"""Begins an execution whose output goes to what it is given."""


def events_of(begin: Begin) -> Iterator[Output | Result]:
    """Yield each piece of output and then the result; leaving early calls the execution off.

    Args:
        begin: Called with the first step of the iteration.
    """
    events: SimpleQueue[Output | None] = SimpleQueue()
    execution = begin(events.put)
    execution.on_done(lambda: events.put(None))
    try:
        while (event := events.get()) is not None:
            yield event
        yield execution.result()
    finally:
        execution.cancel()


async def aevents_of(begin: Begin) -> AsyncIterator[Output | Result]:
    """The async twin of `events_of`; closing it (``aclose``) calls the execution off."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Output | None] = asyncio.Queue()

    def put(event: Output | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the listener
            loop.call_soon_threadsafe(events.put_nowait, event)

    execution = begin(put)
    execution.on_done(lambda: put(None))
    try:
        while (event := await events.get()) is not None:
            yield event
        yield execution.result()
    finally:
        if not execution.done():
            await asyncio.to_thread(execution.cancel)


async def ending_of(execution: Execution) -> Result:
    """Wait for an execution's result; a coroutine that is cancelled here calls it off."""
    try:
        return await asyncio.wrap_future(execution.future)
    except asyncio.CancelledError:
        await asyncio.to_thread(execution.cancel)
        raise
