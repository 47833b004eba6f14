"""The broker's own program: it reads the guests' hostile bytes so that no other process of ours has to.

One per pool, started by subprocess with a clean environment: a process that
holds no secret, runs no guest code, and could be lost without losing more than
its connections. Run as ``python -m runvisor.actors.jail.egress.broker CONTROL_FD
RECORDS_FD OPTIONS``: frames come in at one, go out at the other, and the end of
the first is the end of the process.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket, Message, encode
from runvisor.actors.jail.egress.confinement import confine
from runvisor.actors.jail.egress.gateway import Gateway
from runvisor.actors.jail.egress.plan import MAX_LISTENERS, NetworkPlan
from runvisor.actors.jail.egress.records import EgressLimits, EgressRecord
from runvisor.actors.jail.egress.resolver import Destinations, PinnedHosts
from runvisor.policies.hosts import AllowedHosts

_MAX_COMMAND_BYTES: Final = 1 << 20
_UNSENT_BYTES: Final = 1 << 20
_LOOKUP_THREADS: Final = 32


class _Broker:
    def __init__(self, control: FrameSocket, records: socket.socket, pinned: PinnedHosts) -> None:
        self._control = control
        self._records = records
        self._pinned = pinned
        self._gateways: dict[int, Gateway] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Serve until the host closes the control socket."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_LOOKUP_THREADS))
        _, self._writer = await asyncio.open_connection(sock=self._records)
        self._writer.transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        await self._send({"op": "ready"})
        loop.add_reader(self._control.fileno(), self._obey)
        await self._ended.wait()
        loop.remove_reader(self._control.fileno())
        await asyncio.gather(*(gateway.close() for gateway in self._gateways.values()), *self._closing)

    def _obey(self) -> None:
        """Take one command; the host is trusted, and sends frames whole."""
        try:
            message, fds = self._control.receive_with_fds(MAX_LISTENERS)
        except OSError:
            message, fds = None, []
        if message is None:
            self._ended.set()
        elif message["op"] == "open":
            self._open(message, fds)
        elif message["op"] == "close":
            task = asyncio.create_task(self._close(int(message["execution"])))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _open(self, message: Message, fds: list[int]) -> None:
        number = int(message["execution"])
        plan = NetworkPlan.from_message(message["plan"])

        async def report(record: EgressRecord) -> None:
            await self._send({"op": "record", "execution": number, **record.to_message()})

        gateway = Gateway(
            plan,
            [socket.socket(fileno=fd) for fd in fds],
            destinations=Destinations(AllowedHosts.parse(plan.allowed_hosts), self._pinned),
            limits=EgressLimits(**message["limits"]),
            report=report,
        )
        self._gateways[number] = gateway
        gateway.start()

    async def _close(self, number: int) -> None:
        gateway = self._gateways.pop(number)
        await gateway.close()
        ledger = gateway.ledger
        await self._send(
            {
                "op": "closed",
                "execution": number,
                "requests": ledger.requests,
                "upload_bytes": ledger.upload_bytes,
                "download_bytes": ledger.download_bytes,
            }
        )

    async def _send(self, message: dict[str, Any]) -> None:
        """Send to the host; whoever reports waits while the host is behind."""
        self._writer.write(encode(message))
        await self._writer.drain()


def main() -> None:
    """Run the program described in the module's docstring."""
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends with its host
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a Ray worker ignores it, and that outlives an exec
    control = FrameSocket(socket.socket(fileno=int(sys.argv[1])), max_bytes=_MAX_COMMAND_BYTES)
    records = socket.socket(fileno=int(sys.argv[2]))
    options = json.loads(sys.argv[3])
    confine(int(options["uid"]))
    asyncio.run(_Broker(control, records, PinnedHosts.parse(options["hosts"])).run())


if __name__ == "__main__":
    main()
