"""The host's side: start the broker, open the network of an execution, end it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.egress.records import EgressLimits, EgressRecord
from runvisor.actors.jail.egress.resolver import PinnedHosts
from runvisor.actors.jail.own_process import OwnProcess
from runvisor.actors.jail.uids import UIDS
from runvisor.policies.errors import ProtocolError, SpawnFailed, WorkerCrashed

_START_S: Final = 20.0
_CLOSE_S: Final = 5.0
_EXIT_S: Final = 5.0
_MAX_RECORD_BYTES: Final = 1 << 14
_MODULE: Final = "runvisor.actors.jail.egress.broker"
_ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}

OnRecord = Callable[[EgressRecord], None]


@dataclass(frozen=True, slots=True)
class EgressUsage:
    """What one execution moved over the network."""

    requests: int = 0
    """Connections, refused ones included."""
    upload_bytes: int = 0
    download_bytes: int = 0


@dataclass(slots=True)
class _Open:
    on_record: OnRecord
    closed: threading.Event = field(default_factory=threading.Event)
    usage: EgressUsage = EgressUsage()


class EgressBroker:
    """The process that connects guests to what they are granted, for all executions of a pool.

    It is started at the first `open` and again after it has died; when this
    process ends, so does it. Safe to use from several threads.

    Args:
        hosts: The operator's table of hosts whose places are pinned and need not be global
            (see `runvisor.actors.jail.egress.resolver.PinnedHosts`). The grant must still name them.

    Raises:
        InvalidPermissions: The table is malformed.
    """

    def __init__(self, hosts: Mapping[str, str] | None = None) -> None:
        self._hosts = dict(hosts or {})
        PinnedHosts.parse(self._hosts)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._process: _Process | None = None
        self._is_closed = False

    def open(
        self,
        plan: NetworkPlan,
        listeners: Sequence[int],
        *,
        on_record: OnRecord,
        limits: EgressLimits | None = None,
    ) -> Egress:
        """Serve a child's listeners until the returned network is closed.

        Args:
            plan: What the child was made with.
            listeners: Descriptors of its listeners, in the order of ``plan.ports``. They are closed
                here in any case: while a copy is open, the child can connect.
            on_record: Called for each record, from another thread and in order. If it raises, the
                record is lost, so the broker is ended and every open network with it.
            limits: Bounds of this execution.

        Returns:
            The open network, usable as a context manager.

        Raises:
            SpawnFailed: The broker does not start.
            WorkerCrashed: The broker died just now; the next call starts another.
        """
        try:
            with self._lock:
                if self._is_closed:
                    raise SpawnFailed("the egress broker is closed", "egress")
                if self._process is None or not self._process.alive:
                    if self._process is not None:
                        self._process.close()
                    self._process = _Process(self._hosts)
                return self._process.open(next(self._numbers), plan, listeners, on_record, limits or EgressLimits())
        finally:
            for fd in listeners:
                os.close(fd)

    @property
    def pid(self) -> int | None:
        """The broker process, if it runs."""
        process = self._process
        return process.pid if process is not None and process.alive else None

    def close(self) -> None:
        """End the process and every open network; closing twice is fine."""
        with self._lock:
            self._is_closed = True
            process, self._process = self._process, None
        if process is not None:
            process.close()

    def __enter__(self) -> EgressBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Egress:
    """The open network of one execution."""

    def __init__(self, process: _Process, number: int) -> None:
        self._process = process
        self._number = number
        self._usage: EgressUsage | None = None

    def close(self) -> EgressUsage:
        """Cut every connection, and return once all records have been handed over.

        Returns:
            What was moved; all zero if the broker has died. Closing twice returns the same.
        """
        if self._usage is None:
            self._usage = self._process.shut(self._number)
        return self._usage

    def __enter__(self) -> Egress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Process:
    """One life of the broker."""

    def __init__(self, hosts: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, _Open] = {}
        self._uid = UIDS.take() if os.geteuid() == 0 else 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        sink, source = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control = FrameSocket(ours)
        self._records = FrameSocket(sink, max_bytes=_MAX_RECORD_BYTES)
        fds = (theirs.fileno(), source.fileno())
        options = json.dumps({"uid": self._uid, "hosts": dict(hosts)})
        self._process = OwnProcess(_MODULE, [*map(str, fds), options], fds=fds, environment=_ENVIRONMENT)
        self.pid = self._process.pid
        theirs.close()
        source.close()
        self.alive = True
        try:
            self._process.wait_ready(self._records, "egress broker", "egress", _START_S)
        except SpawnFailed:
            self.close()
            raise
        self._reader = threading.Thread(target=self._read, name="egress-records", daemon=True)
        self._reader.start()

    def open(
        self, number: int, plan: NetworkPlan, listeners: Sequence[int], on_record: OnRecord, limits: EgressLimits
    ) -> Egress:
        self._open[number] = _Open(on_record)
        message = {"op": "open", "execution": number, "plan": plan.to_message(), "limits": limits.to_message()}
        try:
            with self._lock:
                self._control.send(message, listeners)
            if not self.alive:  # and its reader may already have said so to all that were open
                raise BrokenPipeError
        except OSError:
            self._open.pop(number, None)
            self.alive = False
            raise WorkerCrashed("the egress broker died", "egress", "", {"started": False}) from None
        return Egress(self, number)

    def shut(self, number: int) -> EgressUsage:
        entry = self._open.get(number)
        if entry is None:
            return EgressUsage()
        with contextlib.suppress(OSError), self._lock:
            self._control.send({"op": "close", "execution": number})
        if not entry.closed.wait(_CLOSE_S):
            self._process.kill()  # a broker that does not let go must not keep a connection
            entry.closed.wait(_CLOSE_S)
        self._open.pop(number, None)
        return entry.usage

    def close(self) -> None:
        self.alive = False
        self._process.end(self._control)
        reader = getattr(self, "_reader", None)
        if reader is not None:
            reader.join(_EXIT_S)
        self._control.close()
        self._records.close()
        if self._uid:
            UIDS.give_back(self._uid)

    def _read(self) -> None:
        """Hand records to their executions; the broker's word is checked like any stranger's."""
        try:
            with contextlib.suppress(OSError, ProtocolError):
                while (message := self._records.receive()) is not None:
                    self._take(message)
        finally:
            self.alive = False
            self._process.kill()
            for entry in list(self._open.values()):
                entry.closed.set()

    def _take(self, message: Message) -> None:
        number, op = message.get("execution"), message.get("op")
        entry = self._open.get(number) if type(number) is int else None
        if op == "record":
            record = EgressRecord.from_message(message)
            if entry is not None:
                entry.on_record(record)
        elif op == "closed":
            moved = [message.get(name) for name in ("requests", "upload_bytes", "download_bytes")]
            if not all(type(item) is int and 0 <= item < 2**63 for item in moved):
                raise ProtocolError("the egress broker sent malformed totals")
            if entry is not None:
                entry.usage = EgressUsage(*(int(item or 0) for item in moved))
                entry.closed.set()
        else:
            raise ProtocolError("the egress broker sent an unknown frame")
