"""Tasks on arms of one's choice, through a real handle."""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from benchmarks.scheduler.real.recording import Key, Run
from runvisor.policies.errors import RunvisorError
from runvisor.policies.result import Result
from runvisor.policies.scheduling.arms import ARMS
from runvisor.policies.task import Task
from runvisor.policies.values import Value
from runvisor.supervisor.handle import Handle

ARM_NAMES: Final = (
    *("python/native", "python/jit", "wasm/cpython", "v8/isolate", "wasm/quickjs", "ebpf/record", "wasm/record"),
)
"""What the workload runs on."""
RUNTIMES: Final[tuple[str, ...]] = ("python", "v8", "wasm", "ebpf")
BY_NAME: Final = {arm.name: arm for arm in ARMS}


def eligible_arms(handle: Handle, task: Task) -> tuple[str, ...]:
    """Return the arms that the supervisor would choose from; runs the task once to find out.

    Raises:
        RunvisorError: It failed.
    """
    result = handle.run(task)
    result.unwrap()
    assert result.decision is not None
    return tuple(candidate.arm for candidate in result.decision.candidates if not candidate.excluded_because)


def run_on(handle: Handle, task: Task, arm: str) -> Result:
    """Run a task on one arm and no other."""
    result = handle.run(task, arms=(BY_NAME[arm],))
    if f"{result.runtime}/{result.variant}" != arm:
        raise AssertionError(f"{task.label} was to run on {arm} and ran on {result.runtime}/{result.variant}")
    return result


def timed_run(handle: Handle, task: Task, key: Key, *, hogged: bool) -> Run:
    """Run a task on the arm of a cell, and say what it took."""
    began = time.perf_counter()
    try:
        result = run_on(handle, task, key[2])
    except RunvisorError:
        return Run(key, time.perf_counter() - began, 0.0, 0.0, failed=True, hogged=hogged)
    elapsed_s, usage = time.perf_counter() - began, result.usage
    is_cold, failed = usage.start_kind == "cold", result.error is not None
    return Run(key, elapsed_s, usage.wall_s, usage.queue_s, is_cold, failed, hogged)


def is_equal(left: Value, right: Value) -> bool:
    """Say whether two answers are the same; an array is one like its values."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return bool(np.array_equal(np.asarray(left), np.asarray(right)))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(is_equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(is_equal, left, right))
    return type(left) is type(right) and left == right
