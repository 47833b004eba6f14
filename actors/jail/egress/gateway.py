"""One execution's network: its listeners, its connections, its bounds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from runvisor.actors.jail.egress.connection import Connection, Gate, Report
from runvisor.actors.jail.egress.plan import PROXY_ADDRESS, NetworkPlan
from runvisor.actors.jail.egress.records import EgressLimits, EgressRecord, Ledger
from runvisor.actors.jail.egress.resolver import Destinations
from runvisor.actors.jail.egress.stream import Stream

_BREATH_S = 0.05


class Gateway:
    """Accepts what a guest connects to, and lets through what its plan grants.

    Use within a running event loop: `start`, and `close` at the execution's end.

    Args:
        plan: What the guest was shown.
        listeners: Sockets made by `runvisor.actors.jail.egress.inside.prepare`; owned from now on.
        destinations: Where granted hosts lead.
        limits: Its bounds.
        report: Takes each record; connections wait for it.
    """

    def __init__(
        self,
        plan: NetworkPlan,
        listeners: Sequence[socket.socket],
        *,
        destinations: Destinations,
        limits: EgressLimits,
        report: Report,
    ) -> None:
        self.ledger = Ledger(limits)
        self._gate = Gate(destinations, limits, self.ledger, report)
        self._listeners = list(listeners)
        self._routes = {(route.address, route.port): route for route in plan.routes}
        self._proxy = (PROXY_ADDRESS, plan.proxy_port)
        self._room = asyncio.Semaphore(limits.max_connections)
        self._accepting: list[asyncio.Task[None]] = []
        self._serving: dict[asyncio.Task[None], socket.socket] = {}

    def start(self) -> None:
        """Begin to accept."""
        for listener in self._listeners:
            listener.setblocking(False)
            self._accepting.append(asyncio.create_task(self._accept(listener)))

    async def close(self) -> None:
        """Cut every connection, close every socket; closing twice is fine."""
        tasks = [*self._accepting, *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while not self.ledger.exhausted:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:  # out of descriptors, or the client has left again
                await asyncio.sleep(_BREATH_S)
                continue
            try:
                await self._room.acquire()
            except BaseException:
                sock.close()
                raise
            self.ledger.count_request()
            task = asyncio.create_task(self._serve(sock))
            self._serving[task] = sock
            task.add_done_callback(self._forget)
        await self._stop_accepting()

    async def _serve(self, sock: socket.socket) -> None:
        local = sock.getsockname()[:2]
        await Connection(Stream(sock), self._gate).serve(self._routes.get(local), is_proxy=local == self._proxy)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._serving.pop(task).close()  # also that of a task that was cancelled before it began
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, OSError):
            raise error

    async def _stop_accepting(self) -> None:
        """From now on the guest's kernel refuses its connections: they cost nobody anything."""
        listeners, self._listeners = self._listeners, []
        for task in self._accepting:
            if task is not asyncio.current_task():
                task.cancel()
        for listener in listeners:
            listener.close()
        if listeners:
            limit = self._gate.limits.max_requests
            reason = f"this execution has made its {limit} connections"
            await self._gate.report(EgressRecord("denied", "direct", "", 0, "", reason))
