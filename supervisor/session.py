"""A session as its owner uses it: cells that share their state, in one sandbox of their own."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from runvisor.actors.channel.base import Channel
from runvisor.actors.channel.frames import Message
from runvisor.policies.errors import ConfigError, InvalidTask, ProtocolError, RunvisorError, SessionLost, WorkerCrashed
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import OnExcess
from runvisor.policies.values import Value, is_number, unpack
from runvisor.supervisor.execution import OnOutput, output_events
from runvisor.supervisor.handle import Handle
from runvisor.supervisor.shared import sealed_inputs

CHECKPOINT_VERSION: Final = 1
MAX_CELLS: Final = 10_000
NO_CODE: Final = "-"
"""Stands for the code of a task that is a session: its code comes in cells."""
_MAX_KEPT_INPUTS: Final = 1024 * 1024
SESSION_ARMS: Final = frozenset({"python/native", "v8/isolate"})
"""Those that keep sessions."""


@dataclass(frozen=True, slots=True)
class HistoryCell:
    """A cell that ran and succeeded."""

    code: str
    label: str = ""
    inputs: bytes | None = b""
    """Packed; empty is none, and None were too large to keep."""


class Session:
    """A sandbox that keeps its state between cells; made by `Supervisor.session`.

    One cell runs at a time; `interrupt` and `close` may be called from other
    threads. It belongs to its handle's principal and to nobody else. When its
    pool dies, when a cell goes over a limit, or when it idles too long, it is
    gone with its state: later calls raise `SessionLost`, which says why.

    Args:
        handle: The owner's.
        channel: To the pool that keeps it.
        token: What the pool knows it by; a secret.
        asked: What it was opened with, as plain data for `checkpoint`.
    """

    def __init__(self, handle: Handle, channel: Channel, token: str, asked: Mapping[str, Any]) -> None:
        self._handle = handle
        self._channel = channel
        self._token = token
        self._asked = dict(asked)
        self._history: list[HistoryCell] = []
        self._lock = threading.Lock()
        self._lost = ""

    @classmethod
    def open(cls, handle: Handle, task: Task, *, on_excess: OnExcess, idle_timeout_s: float | None) -> Session:
        """Open a session in the pool of a language.

        Args:
            handle: The owner's.
            task: The language, permissions, trust and label; its code is not used.
            on_excess: What to do about permissions beyond a ceiling.
            idle_timeout_s: When it ends unused; None is the pool's own bound.

        Raises:
            ConfigError: The language has no sessions.
            PolicyError: It asks for more than it may have.
            TooManySessions: The principal, or the pool, has as many as it may.
        """
        request = {"op": "open session", "on_excess": on_excess, "idle_s": idle_timeout_s}
        channel, answer = handle.ask_pool(task, request, SESSION_ARMS, on_excess=on_excess)
        token = answer.get("session")
        if answer.get("op") != "session" or not isinstance(token, str):
            raise ProtocolError(f"the pool answered with {answer.get('op')!r}", "session")
        asked = {
            "language": task.language,
            "permissions": task.permissions.to_dict(),
            "trust": task.trust.label,
            "label": task.label,
            "profile": task.profile,
            "idle_timeout_s": idle_timeout_s,
        }
        return cls(handle, channel, token, asked)

    @property
    def language(self) -> str:
        """The language of its cells."""
        return str(self._asked["language"])

    @property
    def history(self) -> tuple[HistoryCell, ...]:
        """The cells that ran and succeeded, in order."""
        with self._lock:
            return tuple(self._history)

    def run(
        self,
        code: str,
        inputs: Value = None,
        timeout_s: float | None = None,
        on_output: OnOutput | None = None,
        *,
        label: str = "",
    ) -> Result:
        """Run one cell in the state that earlier ones left.

        A cell that fails leaves the session as it is. One that goes over a limit
        ends it: the error's ``details["session"]`` is then ``"ended"``. A caller
        that is interrupted here (Ctrl-C) interrupts the cell, not the session.

        Args:
            code: Source text.
            inputs: What the cell sees as ``inputs``.
            timeout_s: A bound below the session's ``timeout_s``.
            on_output: Called with each `Output` as it is printed, in this thread.
            label: A name for people.

        Raises:
            SessionLost: The session is gone.
            SessionBusy: Another thread runs a cell in it.
            ConfigError: The cell is malformed.
        """
        if not isinstance(code, str) or not code.strip():
            raise InvalidTask("the cell is empty, or no text", "code", "pass source text")
        cell = {"op": "cell", "code": code, "label": label, "timeout_s": timeout_s, "stream": on_output is not None}
        try:
            with sealed_inputs(inputs) as packed:
                shared = [part.fileno() for part in packed.memory]
                answer = self._ask({**cell, "inputs": packed.data}, on_output, shared)
        except RunvisorError:
            raise
        except BaseException:
            with contextlib.suppress(RunvisorError):
                self.interrupt()
            raise
        result = Result.from_wire(answer["result"])
        if result.ok:
            kept: bytes | None = b"" if inputs is None else packed.data
            if packed.memory or len(packed.data) > _MAX_KEPT_INPUTS:
                kept = None
            with self._lock:
                self._history.append(HistoryCell(code, label, kept))
        return result

    def interrupt(self) -> bool:
        """Interrupt the running cell, which then ends with `GuestInterrupted`; the session lives on.

        Returns:
            Whether one was running.

        Raises:
            SessionLost: The session is gone.
        """
        return bool(self._ask({"op": "interrupt"}).get("found"))

    def checkpoint(self) -> dict[str, Any]:
        """Return the history as plain JSON data, from which `Supervisor.restore_session` makes it anew.

        It holds code and inputs, not the state itself: what the cells do is done again.

        Raises:
            ConfigError: A cell had large inputs (a part of 64 KiB, or 1 MiB together), which are not kept.
        """
        cells: list[dict[str, str]] = []
        for number, cell in enumerate(self.history, 1):
            if cell.inputs is None:
                raise ConfigError(
                    f"cell {number} had inputs that are too large to keep",
                    "checkpoint",
                    "load large data in a cell, or give it as files",
                )
            cells.append({"code": cell.code, "label": cell.label, "inputs": base64.b64encode(cell.inputs).decode()})
        return {"version": CHECKPOINT_VERSION, **self._asked, "cells": cells}

    def replay(self, cells: list[HistoryCell]) -> None:
        """Run the cells of a checkpoint.

        Raises:
            RunvisorError: What the first cell that fails ended with; ``details["cell"]`` says which.
        """
        for number, cell in enumerate(cells, 1):
            error = self.run(cell.code, unpack(cell.inputs) if cell.inputs else None, label=cell.label).error
            if error is not None:
                details = {**error.details, "cell": number}
                raise type(error)(f"cell {number} of the checkpoint: {error.what}", error.where, error.remedy, details)

    def process(self) -> tuple[int, bytes]:
        """Return the session's process, and its pool's ticket that it is ours, for `Supervisor.observing`.

        Raises:
            SessionLost: The session is gone.
        """
        answer = self._ask({"op": "session process"})
        pid, ticket = answer.get("pid"), answer.get("ticket")
        if not isinstance(pid, int) or not isinstance(ticket, bytes):
            raise ProtocolError("the pool does not say which process it is", "session")
        return pid, ticket

    def close(self) -> None:
        """End the session, also in the middle of a cell; closing twice is fine."""
        if not self._lost:
            with contextlib.suppress(RunvisorError):  # gone by itself, or with its pool
                self._ask({"op": "close session"})
        self._lost = self._lost or "it was closed"

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Message, on_output: OnOutput | None = None, shared: Sequence[int] = ()) -> Message:
        if self._lost:
            raise SessionLost(f"the session is gone: {self._lost}", "session", "open a new one")
        self._handle.renew()
        request = {**request, "session": self._token, "authority": self._handle.authority}
        try:
            answer = self._channel.request(request, output_events(on_output), shared)
        except WorkerCrashed:
            self._lost = "its pool died"
            raise SessionLost("the session is gone: its pool died", "session", "open a new one") from None
        if answer.get("op") == "error":
            raise RunvisorError.from_wire(answer["error"])
        return answer


def read_checkpoint(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], list[HistoryCell]]:
    """Check a checkpoint, wherever it was kept, and return what to open and what to run.

    Raises:
        ConfigError: It is not one.
    """
    try:
        if checkpoint["version"] != CHECKPOINT_VERSION or len(checkpoint["cells"]) > MAX_CELLS:
            raise ConfigError(f"a checkpoint of version {checkpoint['version']!r}, or too long", "checkpoint")
        cells = [
            HistoryCell(_text(cell["code"]), _text(cell["label"]), base64.b64decode(cell["inputs"], validate=True))
            for cell in checkpoint["cells"]
        ]
        asked = {key: _text(checkpoint[key]) for key in ("language", "trust", "label")}
        asked["profile"] = _text(checkpoint.get("profile", ""))
        idle_s = checkpoint["idle_timeout_s"]
        if idle_s is not None and not is_number(idle_s):
            raise TypeError("idle_timeout_s is a number")
        return {
            **asked,
            "idle_timeout_s": idle_s,
            "permissions": Permissions.from_dict(checkpoint["permissions"]),
        }, cells
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"not a checkpoint: {type(error).__name__}: {error}", "checkpoint") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text is missing")
    return value
