"""A pool puts what the kernel counted into its answers and on record, or says why there is nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runvisor.actors.audit_log import AuditLog
from runvisor.actors.channel.frames import Message
from runvisor.actors.pool import PoolActor
from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import PoolSize
from runvisor.actors.service import PoolService
from runvisor.actors.settings import RuntimeSettings
from runvisor.actors.witness.witness import Witness
from runvisor.policies.authority import Authority
from runvisor.policies.batches import endings_of
from runvisor.policies.errors import ConfigError
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Trust
from runvisor.policies.values import pack
from tests.actors.test_service import KEY, Adder, Answer
from tests.actors.witness.test_counting import GETPPID, REBOOT, counted, made

CODE = f"""
import ctypes
def main(inputs):
    for _ in range(inputs): ctypes.CDLL(None).syscall({GETPPID})
    ctypes.CDLL(None).syscall({REBOOT})
"""


def request(operation: str, **changes: Any) -> Message:
    authority = Authority("tester", Trust.VERIFIED, None, time.time() + 600).seal(KEY)
    task = Task(CODE, "python", 5, label="counted")
    return {"op": operation, "authority": authority, "task": task.to_wire(), "variant": "native", **changes}


def records(audit: AuditLog) -> list[dict[str, Any]]:
    return [json.loads(line)["details"] for line in audit.path.read_text().splitlines()]


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditLog]:
    log = AuditLog(tmp_path / "audit.jsonl")
    yield log
    log.close()


def test_an_execution_is_on_record_with_what_the_kernel_counted(python: PythonRuntime, audit: AuditLog) -> None:
    answer = Answer()
    PoolService(python, KEY, audit).handle(request("execute"), answer)
    result = Result.from_wire(answer.last["result"])
    kernel = counted(result)
    assert made(kernel, "getppid") == 5
    (record,) = records(audit)
    assert record["kernel"]["refused"] == {"reboot EPERM": 1}
    assert record["kernel"]["syscalls"] == kernel.syscalls
    assert result.to_document()["usage"]["kernel"]["syscalls"] == kernel.syscalls


def test_each_execution_of_a_batch_has_its_own_counts(python: PythonRuntime, audit: AuditLog) -> None:
    answer = Answer()
    inputs = [pack(calls) for calls in (3, 0, 11)]
    PoolService(python, KEY, audit).handle(request("execute batch", inputs=inputs), answer)
    endings = endings_of(answer.last)
    assert [made(counted(end), "getppid") for end in endings if isinstance(end, Result)] == [3, 0, 11]


def test_who_looks_on_sees_the_counts_of_what_still_runs(python: PythonRuntime, audit: AuditLog) -> None:
    service = PoolService(python, KEY, audit)
    assert service.running() == []
    task = Task("import os\nwhile True: os.getppid()", "python", label="endless").to_wire()
    thread = threading.Thread(target=service.handle, args=(request("execute", task=task, execution="one"), Answer()))
    thread.start()
    deadline = time.monotonic() + 20
    try:
        while not (
            (seen := service.running())
            and seen[0].state == "running"
            and seen[0].kernel
            and made(seen[0].kernel, "getppid") > 1000
        ):
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        service.handle(request("cancel", execution="one"), Answer())
        thread.join()
    assert (seen[0].label, seen[0].principal) == ("endless", "tester")
    assert service.running() == []


def test_a_runtime_whose_executions_share_processes_says_that_nothing_is_counted(audit: AuditLog) -> None:
    service = PoolService(Adder(), KEY, audit, uncounted="its executions share processes")
    task = Task("(module)", "wat", np.ones(3)).to_wire()
    for operation, more in (("execute", {}), ("execute batch", {"inputs": [pack(np.ones(3))]})):
        answer = Answer()
        service.handle(request(operation, task=task, variant="module", **more), answer)
        results = [Result.from_wire(answer.last["result"])] if not more else endings_of(answer.last)
        assert isinstance(results[0], Result)
        assert results[0].usage.kernel is None
        assert results[0].isolation.witness == "not counted: its executions share processes"
    assert records(audit)[0]["witness"] == "not counted: its executions share processes"


def test_a_pool_has_accounts_from_its_start_to_its_end(witness: Witness, tmp_path: Path) -> None:
    before = witness.free_accounts
    settings = RuntimeSettings(python_profile="bare", observability="kernel")
    pool = PoolActor("python", PoolSize(1, 2), KEY, str(tmp_path), settings=settings, witness=witness.path)
    try:
        pool.start()
        assert witness.free_accounts < before
    finally:
        pool.close()
    deadline = time.monotonic() + 20
    while witness.free_accounts < before:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_there_is_no_third_way() -> None:
    with pytest.raises(ConfigError, match="off"):
        RuntimeSettings(observability="some")  # type: ignore[arg-type]
