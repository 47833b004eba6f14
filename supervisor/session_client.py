"""The public client's sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakSet

from runvisor.policies.permissions import Permissions
from runvisor.policies.trust import OnExcess, Trust
from runvisor.supervisor.async_session import AsyncSession
from runvisor.supervisor.handle import Handle
from runvisor.supervisor.request import make_task
from runvisor.supervisor.session import NO_CODE, Session, read_checkpoint


class SessionClient:
    """What a client does with sessions."""

    _handle: Handle
    _sessions: WeakSet[Session]
    _threads: ThreadPoolExecutor

    def session(
        self,
        language: str,
        *,
        permissions: Permissions | Mapping[str, Any] | None = None,
        trust: Trust | str = Trust.UNTRUSTED,
        on_excess: OnExcess = "refuse",
        label: str = "",
        profile: str = "",
        idle_timeout_s: float | None = None,
    ) -> Session:
        """Open a session: cells that share their state, in a sandbox that nobody else gets.

        Args:
            language: ``python``, ``javascript``, ``typescript`` or another name of them.
            permissions: As for `run`; ``timeout_s`` and ``output_bytes`` count per cell,
                memory, disk and ``cpu_s`` for all cells together.
            trust: As for `run`.
            on_excess: As for `run`.
            label: A name for people.
            profile: As for `run`.
            idle_timeout_s: The session ends when it ran nothing for so long; 600 s by default.

        Raises:
            NoEligibleArm: The language has no sessions.
            TooManySessions: You, or the pool, have as many as may be.

        For example::

            with sv.session("python") as session:
                session.run("n = 20")
                session.run("n + 1").value
        """
        task, _ = make_task(NO_CODE, language, permissions=permissions, trust=trust, label=label, profile=profile)
        session = Session.open(self._handle, task, on_excess=on_excess, idle_timeout_s=idle_timeout_s)
        self._sessions.add(session)
        return session

    def restore_session(self, checkpoint: Mapping[str, Any], *, on_excess: OnExcess = "refuse") -> Session:
        """Open a session and run the cells of a checkpoint in it.

        Args:
            checkpoint: What `Session.checkpoint` returned. It claims permissions and trust,
                which are checked like any other request's.
            on_excess: As for `run`.

        Raises:
            ConfigError: It is no checkpoint.
            RunvisorError: What a cell failed with this time; the session is closed.
        """
        asked, cells = read_checkpoint(checkpoint)
        session = self.session(on_excess=on_excess, **asked)
        try:
            session.replay(cells)
        except BaseException:
            session.close()
            raise
        return session

    async def asession(self, language: str, **options: Any) -> AsyncSession:
        """The async twin of `session`."""
        return AsyncSession(await asyncio.to_thread(self.session, language, **options), self._threads)
