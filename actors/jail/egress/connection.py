"""One connection of a guest, from its first byte to its record: ask, decide, relay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from runvisor.actors.jail.egress import http1
from runvisor.actors.jail.egress.client_hello import HANDSHAKE, HelloGuard
from runvisor.actors.jail.egress.plan import Route
from runvisor.actors.jail.egress.records import EgressLimits, EgressRecord, Ledger, Refused, Step, Via
from runvisor.actors.jail.egress.resolver import Destinations
from runvisor.actors.jail.egress.stream import Stream

_PHRASES: Final = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway", 504: "Gateway Timeout"}
_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_HTTP, _HTTPS = 80, 443

Report = Callable[[EgressRecord], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Gate:
    """What the connections of one execution share."""

    destinations: Destinations
    limits: EgressLimits
    ledger: Ledger
    report: Report


class Connection:
    """Serves one accepted connection.

    Args:
        client: The guest's end.
        gate: Its execution.
    """

    def __init__(self, client: Stream, gate: Gate) -> None:
        self._client = client
        self._gate = gate
        self._upstream: Stream | None = None
        self._via: Via = "direct"
        self._host, self._port, self._address = "", 0, ""
        self._upload_bytes = self._download_bytes = 0
        self._allowed = False
        self._ending = ""
        self._speaks_http = False
        self._timer = asyncio.timeout(None)

    async def serve(self, route: Route | None, *, is_proxy: bool) -> None:
        """Serve it to its end; raises nothing but cancellation, and leaves nothing open.

        Args:
            route: What its address inside means; None if nothing.
            is_proxy: Whether it came to the proxy.
        """
        try:
            await self._serve(route, is_proxy)
        except asyncio.CancelledError:
            self._ending = self._ending or "the execution ended"
            raise
        finally:
            self._client.reset()
            if self._upstream is not None:
                self._upstream.reset()
            if self._allowed:
                await self._report("ended", self._ending)

    async def _serve(self, route: Route | None, is_proxy: bool) -> None:
        try:
            if is_proxy:
                await self._serve_http(None)
            elif route is None:
                raise Refused("no granted host has this address inside")
            else:
                self._host, self._port = route.host, route.port
                if route.port == _HTTP:
                    await self._serve_http((route.host, route.port))
                else:
                    await self._open()
                    await self._tunnel(must_be_tls=route.port == _HTTPS)
        except Refused as refused:
            self._ending = refused.reason
            await self._report("denied", refused.reason)
            await self._answer(refused.status)
        except TimeoutError:
            self._ending = "it took too long"
            await self._answer(504)
        except (OSError, asyncio.IncompleteReadError) as error:
            self._ending = str(getattr(error, "strerror", None) or "the connection broke off")[:200]
            await self._answer(502)

    async def _serve_http(self, meant: tuple[str, int] | None) -> None:
        """Serve one request; whatever the client sends after it goes nowhere."""
        self._via = "http"
        self._speaks_http = True
        head = await self._head()
        if head is None:
            return
        request = http1.parse(head, meant=meant)
        self._host, self._port = request.host, request.port
        if request.method != "CONNECT":
            await self._open()
            await self._exchange(request)
            return
        self._via = "connect"
        await self._open()
        await self._client.send(_ESTABLISHED)
        self._speaks_http = False
        await self._tunnel(must_be_tls=True)

    async def _head(self) -> bytes | None:
        """Read the head of a request; None if the client left without a word."""
        try:
            async with asyncio.timeout(self._gate.limits.head_timeout_s):
                return await self._client.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise Refused("the head of the request is too long", 431) from None
        except TimeoutError:
            raise Refused("the head of the request took too long", 408) from None
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                return None
            raise Refused("the request does not end", 400) from None

    async def _open(self) -> None:
        """Decide on the host and port, report it, and connect.

        Raises:
            Refused: They are not let through.
            OSError: They cannot be reached.
        """
        async with asyncio.timeout(self._gate.limits.connect_timeout_s):
            places = await self._gate.destinations.find(self._host, self._port)
            for number, (address, port) in enumerate(places, 1):
                self._address = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
                if not self._allowed:
                    await self._report("allowed", "")
                    self._allowed = True
                try:
                    async with asyncio.timeout(self._gate.limits.connect_timeout_s / len(places)):
                        self._upstream = await Stream.to(address, port)
                    return
                except (OSError, TimeoutError):
                    if number == len(places):
                        raise

    async def _exchange(self, request: http1.Request) -> None:
        """Send one request and relay its answer, both at once: an answer may come before the body's end."""
        upstream = self._opened()
        await self._send_up(upstream, request.forwarded())

        async def upload() -> None:
            with contextlib.suppress(OSError):  # a server may answer, and close, without reading the body
                async for piece in http1.body(request, self._client):
                    self._stir()
                    await self._send_up(upstream, piece)

        async with self._idle_timer():
            if request.body:
                whole = await _until_second(upload(), self._download(upstream), ends_both=True)
            else:
                await self._download(upstream)
                whole = True
        if not whole:
            await self._client.linger()
        self._client.close()

    async def _tunnel(self, *, must_be_tls: bool) -> None:
        """Relay both ways; a TLS greeting must name the host, whatever the port.

        Args:
            must_be_tls: Whether anything else is refused. Elsewhere a server may speak first.
        """
        upstream = self._opened()

        async def upload() -> None:
            guard = HelloGuard(self._host) if must_be_tls else None
            deadline = asyncio.get_running_loop().time() + self._gate.limits.head_timeout_s
            is_first = True
            while True:
                greeting = guard is not None and not guard.greeted
                async with asyncio.timeout_at(deadline if greeting else None):
                    data = await self._client.read()
                if not data:
                    break
                self._stir()
                if is_first and guard is None and data[0] == HANDSHAKE:
                    guard = HelloGuard(self._host)
                    deadline = asyncio.get_running_loop().time() + self._gate.limits.head_timeout_s
                is_first = False
                if guard is not None and not guard.done:
                    data = guard.feed(data)
                if data:
                    await self._send_up(upstream, data)
            upstream.finish()

        async def download() -> None:
            await self._download(upstream)
            self._client.finish()

        async with self._idle_timer():
            await _until_second(upload(), download(), ends_both=False)
        self._client.close()

    async def _download(self, upstream: Stream) -> None:
        while data := await upstream.read():
            self._stir()
            self._gate.ledger.count_download(len(data))
            self._download_bytes += len(data)
            self._speaks_http = False  # the answer has begun: ours would only garble it
            await self._client.send(data)

    async def _send_up(self, upstream: Stream, data: bytes) -> None:
        self._gate.ledger.count_upload(len(data))
        self._upload_bytes += len(data)
        await upstream.send(data)

    @contextlib.asynccontextmanager
    async def _idle_timer(self) -> AsyncIterator[None]:
        self._timer = asyncio.timeout(self._gate.limits.idle_timeout_s)
        async with self._timer:
            yield

    def _stir(self) -> None:
        """Note that a byte moved."""
        self._timer.reschedule(asyncio.get_running_loop().time() + self._gate.limits.idle_timeout_s)

    def _opened(self) -> Stream:
        assert self._upstream is not None
        return self._upstream

    async def _answer(self, status: int) -> None:
        """Tell an HTTP client why; others see their connection reset."""
        if not self._speaks_http:
            return
        reason = self._ending
        text = f"runvisor: {reason}\n".encode("ascii", "replace")
        head = f"HTTP/1.1 {status} {_PHRASES.get(status, 'Refused')}: {reason}\r\nContent-Type: text/plain\r\n"
        head += f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        with contextlib.suppress(OSError):
            await self._client.send(head.encode("ascii", "replace") + text)
            await self._client.linger()
            self._client.close()

    async def _report(self, step: Step, reason: str) -> None:
        moved = (self._upload_bytes, self._download_bytes) if step == "ended" else (0, 0)
        record = EgressRecord(step, self._via, self._host, self._port, self._address, reason, *moved)
        await self._gate.report(record)


async def _until_second(upload: Awaitable[None], download: Awaitable[None], *, ends_both: bool) -> bool:
    """Run both directions until both have ended, or one has failed.

    Args:
        upload: The guest's bytes.
        download: The server's.
        ends_both: Whether the download's end ends the upload too.

    Returns:
        Whether both came to their own end.
    """
    first, second = asyncio.ensure_future(upload), asyncio.ensure_future(download)
    pending = {first, second}
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if ends_both and second in done:
                return not pending
        return True
    finally:
        for task in (first, second):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
