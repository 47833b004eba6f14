"""How tests of runtimes run one task, without a supervisor."""

from __future__ import annotations

import threading
from typing import Any

from runvisor.actors.runtime import Runtime, Watch
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust


def execute(
    runtime: Runtime,
    code: str | bytes,
    language: str,
    variant: str,
    inputs: Any = None,
    *,
    trust: Trust = Trust.UNTRUSTED,
    **permissions: Any,
) -> Result:
    """Run one task under exactly the permissions that it asks for."""
    asked = Permissions(**permissions)
    started: list[None] = []
    task = Task(code, language, inputs, asked, trust)
    result = runtime.execute(task, variant, Grant("tester", trust, asked), Watch(lambda: started.append(None)))
    assert len(started) <= 1
    return result


class Heard:
    """What a watch was told.

    Args:
        cancel_at: Call the execution off when this has been printed.
        fail_at: Raise when this has been printed.
    """

    def __init__(self, cancel_at: str | None = None, fail_at: str | None = None) -> None:
        self.starts = 0
        self.events: list[tuple[int, bytes]] = []
        self.printed = threading.Event()
        self.watch = Watch(self._started, self._output)
        self._cancel_at = cancel_at
        self._fail_at = fail_at

    def text(self, stream: int) -> str:
        """Return what was printed on a stream."""
        return b"".join(data for number, data in self.events if number == stream).decode()

    def _started(self) -> None:
        self.starts += 1

    def _output(self, stream: int, data: bytes) -> None:
        self.events.append((stream, data))
        self.printed.set()
        if self._cancel_at is not None and self._cancel_at in self.text(stream):
            self.watch.cancellation.cancel()
        if self._fail_at is not None and self._fail_at in self.text(stream):
            raise ZeroDivisionError(self._fail_at)
