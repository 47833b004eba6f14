"""The async twin of a session."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

from runvisor.policies.errors import RunvisorError
from runvisor.policies.result import Result
from runvisor.supervisor.session import HistoryCell, Session


class AsyncSession:
    """A `Session` for coroutines; made by `Supervisor.asession`.

    Use it as an async context manager. A coroutine that is cancelled while it
    waits for a cell interrupts the cell.

    Args:
        session: What does the work.
        threads: Where it waits.
    """

    def __init__(self, session: Session, threads: ThreadPoolExecutor) -> None:
        self.session = session
        self._threads = threads

    @property
    def history(self) -> tuple[HistoryCell, ...]:
        """See `Session.history`."""
        return self.session.history

    async def run(self, code: str, *arguments: Any, **options: Any) -> Result:
        """See `Session.run`; ``on_output`` is called in a thread of ours."""
        loop = asyncio.get_running_loop()
        future = self._threads.submit(self.session.run, code, *arguments, **options)
        try:
            return await asyncio.wrap_future(future, loop=loop)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.to_thread(self._interrupt)
            raise

    async def interrupt(self) -> bool:
        """See `Session.interrupt`."""
        return await asyncio.to_thread(self.session.interrupt)

    def checkpoint(self) -> dict[str, Any]:
        """See `Session.checkpoint`."""
        return self.session.checkpoint()

    async def close(self) -> None:
        """See `Session.close`."""
        await asyncio.to_thread(self.session.close)

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _interrupt(self) -> None:
        with contextlib.suppress(RunvisorError):  # it has ended meanwhile
            self.session.interrupt()
