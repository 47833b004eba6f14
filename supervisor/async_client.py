"""The async twins of what a client does: the same, for coroutines."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runvisor.policies.result import Result
from runvisor.supervisor.execution import Execution, Output
from runvisor.supervisor.plan.outcome import PlanResult
from runvisor.supervisor.plan.run import Observer
from runvisor.supervisor.request import AUTO
from runvisor.supervisor.streams import aevents_of, ending_of


class AsyncClient(ABC):
    """What a client does, for coroutines."""

    _threads: ThreadPoolExecutor

    @abstractmethod
    def submit(self, code: str | bytes, language: str = AUTO, **options: Any) -> Execution:
        """See `Supervisor.submit`."""

    @abstractmethod
    def map(self, code: str | bytes | Iterable[str | bytes], *args: Any, **options: Any) -> Iterator[Result]:
        """See `Supervisor.map`."""

    @abstractmethod
    def plan(self, plan: str | Path, *, observer: Observer | None = None) -> PlanResult:
        """See `Supervisor.plan`."""

    async def arun(self, code: str | bytes, language: str = AUTO, **options: Any) -> Result:
        """The async twin of `run`; a coroutine that is cancelled calls the task off.

        ``on_output`` is called in a thread of ours.
        """
        return await ending_of(self.submit(code, language, **options))

    def astream(self, code: str | bytes, language: str = AUTO, **options: Any) -> AsyncIterator[Output | Result]:
        """The async twin of `stream`; closing it (``aclose``) calls the task off."""
        return aevents_of(lambda on_output: self.submit(code, language, **options, on_output=on_output))

    async def amap(self, code: str | bytes | Iterable[str | bytes], *args: Any, **options: Any) -> list[Result]:
        """The async twin of `map`; returns all results."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: list(self.map(code, *args, **options)))

    async def aplan(self, plan: str | Path, *, observer: Observer | None = None) -> PlanResult:
        """The async twin of `plan`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self.plan(plan, observer=observer))
