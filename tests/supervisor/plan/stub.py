"""Executors for tests of the manager: trusted code in this process, no sandbox."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runvisor.actors.python import source
from runvisor.actors.python.coroutines import Coroutines
from runvisor.policies.errors import GuestException
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Isolation, Result
from runvisor.policies.scheduling.decision import Candidate, Decision
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.trust import Trust
from runvisor.policies.values import pack, unpack

STUB_ISOLATION = Isolation("none: test code")


@dataclass(frozen=True)
class Call:
    """One call of an executor."""

    code: str | bytes
    language: str
    inputs: Any
    permissions: Permissions
    trust: Trust
    label: str
    objective: Objective | None
    critical: bool


@dataclass
class RecordingExecutor:
    """Remembers every call and answers with a function's value."""

    answer: Callable[[Call], Any]
    calls: list[Call] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(
        self,
        code: str | bytes,
        *,
        language: str,
        inputs: Any,
        permissions: Permissions,
        trust: Trust,
        label: str,
        objective: Objective | None,
        critical: bool,
    ) -> Result:
        call = Call(code, language, unpack(pack(inputs)), permissions, trust, label, objective, critical)
        with self._lock:
            self.calls.append(call)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            value = self.answer(call)
        finally:
            with self._lock:
                self.at_once -= 1
        if isinstance(value, Result):
            return value
        return Result(
            STUB_ISOLATION,
            value,
            runtime="python",
            variant="native",
            language=language,
            decision=Decision("python/native", (Candidate("python/native"),)),
        )

    def labels(self) -> list[str]:
        return [call.label for call in self.calls]


def run_python(call: Call) -> Any:
    """Run a step's Python in this process; errors are the guest's."""
    assert isinstance(call.code, str)
    try:
        program = source.parse(call.code, f"<{call.label}>")
        return unpack(pack(source.run(program, {}, call.inputs, Coroutines()).value))
    except Exception as error:
        raise GuestException(f"{type(error).__name__}: {error}", call.label) from None


def python_executor() -> RecordingExecutor:
    return RecordingExecutor(run_python)
