"""The pool actor: a thin, trusted Ray actor that owns one runtime and its channels."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from runvisor.actors import registry
from runvisor.actors.audit_log import AuditLog
from runvisor.actors.channel.frames import MAX_FDS, decode
from runvisor.actors.channel.load_page import LoadPage
from runvisor.actors.channel.ray_call import RayAnswers
from runvisor.actors.channel.sealed import SealedMemory, seal
from runvisor.actors.channel.unix import UnixServer
from runvisor.actors.garbage import settle
from runvisor.actors.runtime import MortalRuntime, PoolSize, WitnessedRuntime
from runvisor.actors.service import PoolService
from runvisor.actors.sessions import SessionLimits
from runvisor.actors.settings import RuntimeSettings
from runvisor.actors.witness.counting import COUNTED, Witnessing
from runvisor.policies.errors import ConfigError, RunvisorError

_DEFAULTS: Final = RuntimeSettings()
_ACCOUNTS_EACH: Final = 3
"""Of the kernel's accounts, for each instance."""
_CLEAN_UP_S: Final = 10.0
"""What a pool that has lost its runtime has for its last acts."""
_UNCOUNTED: Final = "its executions share processes"


class PoolActor:
    """One runtime, served on a unix socket and by Ray calls.

    Create it with ``ray.remote(PoolActor)``, ``max_restarts=0`` and a
    ``max_concurrency`` above the pool's maximum: a spare replaces it when it
    dies, because a restarted actor would answer seconds later.

    Args:
        runtime: The runtime's name.
        size: How many instances to keep.
        key: What authorities are sealed with.
        audit_folder: Where this actor's audit log goes.
        allow_untrusted_bpf: The operator lets untrusted programs into the kernel.
        settings: What else the operator decided.
        sessions: How many sessions it keeps; None leaves half of its instances to tasks.
        witness: The socket of the process that counts executions in the kernel; empty counts none.
    """

    def __init__(
        self,
        runtime: str,
        size: PoolSize,
        key: bytes,
        audit_folder: str,
        allow_untrusted_bpf: bool = False,
        settings: RuntimeSettings = _DEFAULTS,
        sessions: SessionLimits | None = None,
        witness: str = "",
    ) -> None:
        self._nonce = secrets.token_hex(16)
        self._runtime = registry.create(runtime, size, settings)
        self._size = size
        self._sessions = sessions or SessionLimits.for_pool(size)
        self._accept_weak_isolation = settings.accept_weak_isolation
        self._key = key
        self._allow_untrusted_bpf = allow_untrusted_bpf
        self._witness = Witnessing()
        self._witness_path = witness
        self._closing = threading.Event()
        self._is_lost = False
        folder = Path(audit_folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._audit = AuditLog(folder / f"{runtime}-{os.getpid()}-{self._nonce[:8]}.jsonl")

    def start(self) -> dict[str, Any]:
        """Start the runtime and its channels; return `describe`.

        Raises:
            SpawnFailed: The runtime cannot run on this node; says what is missing.
            ConfigError: It is to keep more sessions than it has instances.
        """
        if self._sessions.total > self._size.maximum:
            raise ConfigError(
                f"{self._sessions.total} sessions do not fit into {self._size.maximum} instances",
                "sessions.total",
                "raise the pool's maximum",
            )
        if self._witness_path and isinstance(self._runtime, WitnessedRuntime):
            # More than there are instances: one that was used is fit again only when no core writes to it.
            self._witness = Witnessing.connect(self._witness_path, _ACCOUNTS_EACH * self._size.maximum)
            self._runtime.witness = self._witness
        self._runtime.start()
        self._service = PoolService(
            self._runtime,
            self._key,
            self._audit,
            allow_untrusted_bpf=self._allow_untrusted_bpf,
            sessions=self._sessions,
            uncounted=_UNCOUNTED if self._witness_path and not self._witness.wanted else "",
            missing_layers=() if self._accept_weak_isolation else self._runtime.probe().missing_layers,
        )
        self._server = UnixServer(self._service.handle, self._nonce)
        self._service.show_load(LoadPage(self._server.path.parent))
        self._audit.append("lifecycle", "start pool", "supervisor", {"runtime": self._runtime.name, "pid": os.getpid()})
        settle()
        if isinstance(self._runtime, MortalRuntime):
            self._runtime.on_death(self._die)
        return self.describe()

    def describe(self) -> dict[str, Any]:
        """Return where this pool is reached, who it is and how busy it is."""
        return {
            "runtime": self._runtime.name,
            "nonce": self._nonce,
            "socket": str(self._server.path),
            "pid": os.getpid(),
            "load": self._service.load().to_wire(),
            "audit": str(self._audit.path),
        }

    def _witness_word(self) -> str:
        """Say what `Isolation.witness` says of this pool's executions."""
        if not self._witness_path:
            return ""
        reason = self._witness.ended if self._witness.wanted else _UNCOUNTED
        return f"not counted: {reason}" if reason else COUNTED

    def stream(self, body: bytes, *shared: Any) -> Iterator[bytes]:
        """Handle one request that came by a Ray call; yields the answers as they come.

        Args:
            body: The request's frame.
            shared: Arrays of bytes: the large parts of its inputs, written into sealed memory here.
        """
        answers = RayAnswers()

        def work() -> None:
            memory: list[SealedMemory] = []
            try:
                memory += seal([memoryview(part) for part in shared[:MAX_FDS]])
                self._service.handle(decode(body), answers, [part.fileno() for part in memory])
            except RunvisorError as error:
                answers.send({"op": "error", "error": error.to_wire(), "load": self._service.load().to_wire()})
            finally:
                for part in memory:
                    part.close()
                answers.close()

        threading.Thread(target=work, name="ray-request", daemon=True).start()
        for answer in answers:
            if self._is_lost:
                threading.Event().wait()  # for the end of this process, by which the caller learns of it
            yield answer

    def running(self) -> dict[str, Any]:
        """Return what runs just now, of all principals: for the supervisor, not for clients of the socket."""
        return {
            "runtime": self._runtime.name,
            "executions": [each.to_wire() for each in self._service.running()],
            "load": self._service.load().to_wire(),
            "witness": self._witness_word(),
        }

    def watch(self) -> None:
        """Return only when the pool closes in order; a caller learns of a crash by the exception."""
        self._closing.wait()

    def _die(self) -> None:
        """End this process, whose runtime makes no instances any more; callers and supervisor see a crash.

        It is a crash: the spare takes over, the restart counts, and what had not started runs there.
        """
        self._is_lost = True
        self._server.close()  # first: nobody is to get an answer that blames the task
        threading.Thread(target=self._end_lost, name="last-acts", daemon=True).start()

    def _end_lost(self) -> None:
        overdue = threading.Timer(_CLEAN_UP_S, os._exit, (1,))
        overdue.daemon = True
        overdue.start()
        try:
            with contextlib.suppress(OSError):
                self._audit.append("lifecycle", "lose runtime", "supervisor", {"runtime": self._runtime.name})
            self._end_parts()
        finally:
            os._exit(1)

    def close(self) -> None:
        """End every process, cgroup, mount and file of this pool."""
        if self._closing.is_set():
            return
        self._server.close()
        self._end_parts()
        with contextlib.suppress(OSError):
            self._audit.append("lifecycle", "stop pool", "supervisor", {})
        self._audit.close()
        self._closing.set()

    def _end_parts(self) -> None:
        self._service.close()
        self._runtime.close()
        self._witness.close()
