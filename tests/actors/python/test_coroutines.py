"""The event loop of a task or a session."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from runvisor.actors.python.coroutines import Coroutines


@pytest.fixture
def coroutines() -> Iterator[Coroutines]:
    coroutines = Coroutines()
    yield coroutines
    coroutines.close()


def test_what_one_coroutine_starts_goes_on_in_the_next(coroutines: Coroutines) -> None:
    seen: list[int] = []

    async def tick() -> None:
        for number in range(3):
            seen.append(number)
            await asyncio.sleep(0)

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(tick())

    async def wait(task: asyncio.Task[None]) -> None:
        await task

    task = coroutines.run(start())
    assert len(seen) < 3
    coroutines.run(wait(task))
    assert seen == [0, 1, 2]


def test_closing_cancels_what_is_left_and_may_be_done_twice() -> None:
    seen: list[str] = []

    async def linger() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("cleaned")

    async def start() -> None:
        asyncio.create_task(linger())  # noqa: RUF006  # that it is forgotten is what is tested
        await asyncio.sleep(0)

    coroutines = Coroutines()
    coroutines.run(start())
    coroutines.close()
    coroutines.close()
    assert seen == ["cleaned"]


def test_without_a_coroutine_there_is_nothing_to_interrupt(coroutines: Coroutines) -> None:
    assert not coroutines.interrupt(None)


def test_an_interrupt_in_a_coroutines_own_code_is_for_the_handler_to_raise(coroutines: Coroutines) -> None:
    async def own() -> bool:
        return coroutines.interrupt(sys._getframe())

    assert coroutines.run(own()) is False


def test_an_interrupt_while_the_loop_waits_cancels_what_waits(coroutines: Coroutines) -> None:
    async def wait() -> None:
        asyncio.get_running_loop().call_soon(lambda: coroutines.interrupt(None))
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        coroutines.run(wait())


def test_an_interrupt_in_the_loops_code_while_a_coroutine_calls_it_waits_for_the_next_await(
    coroutines: Coroutines,
) -> None:
    code = compile("held_back = interrupt(sys._getframe())", f"{asyncio.__path__[0]}/base_events.py", "exec")
    namespace = {"interrupt": coroutines.interrupt, "sys": sys}

    async def call() -> None:
        exec(code, namespace)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        coroutines.run(call())
    assert namespace["held_back"] is True


def test_a_second_interrupt_is_not_held_back(coroutines: Coroutines) -> None:
    said: list[bool] = []

    def interrupt_twice() -> None:
        said.extend([coroutines.interrupt(None), coroutines.interrupt(None)])

    async def wait() -> None:
        asyncio.get_running_loop().call_soon(interrupt_twice)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        coroutines.run(wait())
    assert said == [True, False]


def test_a_cancellation_of_its_own_stays_one(coroutines: Coroutines) -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        coroutines.run(cancelled())
