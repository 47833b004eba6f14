"""Batches at a pool: admitted once, each execution apart, all on record."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors import batch_requests
from runvisor.actors.audit_log import AuditLog
from runvisor.actors.channel.frames import Message
from runvisor.actors.runtime import Watch, called_off
from runvisor.actors.service import PoolService
from runvisor.policies.authority import Authority
from runvisor.policies.batches import MAX_INPUTS, endings_of
from runvisor.policies.errors import InvalidTask, PolicyError, ProtocolError, RunvisorError, WorkerCrashed
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Isolation, Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import pack
from tests.actors.test_service import KEY, Adder, Answer


class Doubler(Adder):
    """Doubles numbers, and ends otherwise as it is told."""

    def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
        watch.started()
        if watch.cancellation.cancelled:
            raise called_off()
        match task.inputs:
            case "refuse":
                raise InvalidTask("not a number", "inputs")
            case "crash":
                raise WorkerCrashed("gone", "wasm")
            case "cancel":
                watch.cancellation.cancel()
            case "long":
                return Result(Isolation("none"), stdout="x" * 1000)
        return Result(Isolation("none"), value=task.inputs * 2)


@pytest.fixture
def audit_path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def service(audit_path: Path) -> Iterator[PoolService]:
    audit = AuditLog(audit_path)
    service = PoolService(Doubler(), KEY, audit)
    yield service
    service.close()
    audit.close()


def ask(service: PoolService, inputs: Any, **changes: Any) -> Message:
    authority = Authority("tester", Trust.VERIFIED, None, time.time() + 600).seal(KEY)
    task = Task("(module)", "wat", permissions=Permissions(**changes)).to_wire()
    request = {"op": "execute batch", "authority": authority, "task": task, "variant": "module", "inputs": inputs}
    answer = Answer()
    service.handle(request, answer)
    return answer.last


def endings(service: PoolService, *inputs: Any) -> list[Any]:
    return endings_of(ask(service, [pack(value) for value in inputs]))


def refusal(answer: Message) -> RunvisorError:
    return RunvisorError.from_wire(answer["error"])


def test_each_input_has_an_ending_and_one_does_not_spoil_another(service: PoolService) -> None:
    first, refused, last = endings(service, 1, "refuse", 3)
    assert (first.value, last.value) == (2, 6)
    assert isinstance(refused, InvalidTask)


def test_the_program_is_admitted_like_any_other(service: PoolService, audit_path: Path) -> None:
    error = refusal(ask(service, [pack(1)], memory_bytes=1 << 60))
    assert isinstance(error, PolicyError)
    assert '"denial"' in audit_path.read_text()


def test_the_log_says_how_they_ended(service: PoolService, audit_path: Path) -> None:
    endings(service, 1, "refuse", 3)
    record = json.loads(audit_path.read_text().splitlines()[-1])
    assert "execute batch" in json.dumps(record)
    assert '"InvalidTask": 1' in json.dumps(record)
    assert '"ok": 2' in json.dumps(record)


def test_what_ran_before_the_pool_failed_is_on_record(service: PoolService, audit_path: Path) -> None:
    assert isinstance(refusal(ask(service, [pack(1), pack("crash")])), WorkerCrashed)
    assert '"ok": 1' in json.dumps(json.loads(audit_path.read_text().splitlines()[-1]))


def test_a_batch_that_is_called_off_ends_there(service: PoolService) -> None:
    assert len(endings(service, 1, "cancel", 3)) == 2


def test_a_batch_with_much_to_say_ends_early(service: PoolService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_requests, "MAX_ANSWER_BYTES", 1500)
    assert len(endings(service, *["long"] * 5)) == 2


@pytest.mark.parametrize("inputs", [None, [], 3, [pack(1)] * (MAX_INPUTS + 1), ["text"]])
def test_anything_else_is_no_batch(service: PoolService, inputs: Any) -> None:
    assert isinstance(refusal(ask(service, inputs)), ProtocolError)
