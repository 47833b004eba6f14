"""What a pool does with large inputs whose runtime does not map them itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runvisor.actors import service as module
from runvisor.actors.audit_log import AuditLog
from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.frames import Message
from runvisor.actors.channel.sealed import seal
from runvisor.actors.runtime import Load, Probe, Watch, called_off
from runvisor.actors.service import PoolService
from runvisor.policies.authority import Authority
from runvisor.policies.errors import Cancelled, InvalidTask, IsolationUnavailable, RunvisorError
from runvisor.policies.permissions import KiB, Permissions
from runvisor.policies.result import Isolation, Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import pack

KEY = bytes(range(32))


class Adder:
    """A runtime that adds up what it is given, and has neither sessions nor maps."""

    name = "wasm"

    def probe(self) -> Probe:
        return Probe(self.name, True, "")

    def start(self) -> None:
        pass

    def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
        return Result(Isolation("none"), value=float(task.inputs.sum()))

    def load(self) -> Load:
        return Load()

    def close(self) -> None:
        pass


class Answer:
    """Keeps the last answer."""

    last: Message

    def send(self, message: Message) -> None:
        self.last = message

    def offer(self, make: Callable[[], Message]) -> bool:
        return False

    def cancel_when_gone(self, cancellation: Cancellation) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[PoolService]:
    audit = AuditLog(tmp_path / "audit.jsonl")
    service = PoolService(Adder(), KEY, audit)
    yield service
    service.close()
    audit.close()


def request(**changes: Any) -> Message:
    authority = Authority("tester", Trust.VERIFIED, None, time.time() + 600).seal(KEY)
    task = Task("(module)", "wat", permissions=Permissions(memory_bytes=64 * KiB))
    return {"op": "execute", "authority": authority, "task": task.to_wire(), "variant": "module", **changes}


def ask(service: PoolService, array: np.ndarray[Any, Any]) -> Message:
    buffers: list[Any] = []
    message = request()
    message["task"]["inputs"] = pack(array, buffers)
    memory = seal(buffers)
    answer = Answer()
    service.handle(message, answer, [part.fileno() for part in memory])
    return answer.last


def test_the_runtime_gets_views_of_the_memory(service: PoolService) -> None:
    assert Result.from_wire(ask(service, np.ones(20_000))["result"]).value == 20_000


def test_more_than_the_guest_could_hold_is_not_decoded_here(
    service: PoolService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FRAME_BYTES", 0)
    assert isinstance(RunvisorError.from_wire(ask(service, np.ones(20_000))["error"]), InvalidTask)


def test_a_runtime_without_sessions_refuses_them(service: PoolService) -> None:
    answer = Answer()
    service.handle(request(op="open session"), answer)
    assert "no sessions" in RunvisorError.from_wire(answer.last["error"]).what


def test_untrusted_code_is_refused_for_want_of_a_layer_and_other_code_is_not(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "weak.jsonl")
    service = PoolService(Adder(), KEY, audit, missing_layers=("pid namespace",))
    answer = Answer()
    try:
        service.handle(request(), answer)
        error = RunvisorError.from_wire(answer.last["error"])
        assert isinstance(error, IsolationUnavailable)
        assert "pid namespace" in error.what
        assert "accept_weak_isolation" in error.remedy
        vouched = Task("(module)", "wat", np.ones(3).tolist(), trust=Trust.VERIFIED)
        service.handle(request(task=vouched.to_wire()), answer)
        assert "IsolationUnavailable" not in str(answer.last)
    finally:
        service.close()
        audit.close()
    assert "IsolationUnavailable" in (tmp_path / "weak.jsonl").read_text()


def test_a_task_that_was_called_off_while_it_waited_is_on_record(tmp_path: Path) -> None:
    class Full(Adder):
        def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
            raise called_off()

    audit = AuditLog(tmp_path / "audit.jsonl")
    service = PoolService(Full(), KEY, audit)
    answer = Answer()
    service.handle(request(), answer)
    service.close()
    audit.close()
    assert isinstance(RunvisorError.from_wire(answer.last["error"]), Cancelled)
    assert '"call off"' in (tmp_path / "audit.jsonl").read_text()


@pytest.mark.parametrize(("said", "counted_s"), [(0.25, 0.25), (1e9, 3.0), (None, 0.0), ("long", 0.0)])
@pytest.mark.parametrize("executions", [1, 4])
def test_what_a_client_expects_counts_while_it_runs_and_no_further_than_its_limit(
    tmp_path: Path, said: object, counted_s: float, executions: int
) -> None:
    seen: list[float] = []

    class Watched(Adder):
        def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
            seen.append(service.load().backlog_s)
            return Result(Isolation("none"), value=0)

    audit = AuditLog(tmp_path / "audit.jsonl")
    service = PoolService(Watched(), KEY, audit)
    answer = Answer()
    task = Task("(module)", "wat", permissions=Permissions(timeout_s=3.0))
    batch = {"op": "execute batch", "inputs": [pack(n) for n in range(executions)]} if executions > 1 else {}
    service.handle(request(task=task.to_wire(), expected_s=said, **batch), answer)
    service.close()
    audit.close()
    assert seen == pytest.approx([counted_s * left for left in range(executions, 0, -1)])
    assert answer.last["load"]["backlog_s"] == 0.0
