"""Recording deterministic executions, and replaying them."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from runvisor.policies.errors import InvalidTask
from runvisor.policies.permissions import Permissions
from runvisor.policies.recording import REPLAY_CEILING, Observation, Recording, Replay
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.supervisor.handle import Handle


def record(handle: Handle, task: Task, language_reason: str = "") -> tuple[Result, Recording]:
    """Run a task deterministically; return what came of it, and a recording."""
    if task.files:
        raise InvalidTask("a recording holds no files", "files", "pass the data as inputs")
    task = replace(task, permissions=replace(task.permissions, deterministic=True))
    result = handle.run(task, on_excess="refuse", language_reason=language_reason)
    return result, Recording(task, versions(), Observation.of(result))


def replay(handle: Handle, recording: bytes | Recording, ceiling: Permissions | None = None) -> Replay:
    """Run a recorded task again as untrusted code, and compare."""
    if isinstance(recording, bytes):
        recording = Recording.from_bytes(recording)
    task = recording.task_within(ceiling or REPLAY_CEILING)
    return Replay.compare(recording, handle.run(task, on_excess="refuse"), versions())


def versions() -> dict[str, str]:
    """Return the versions that decide what a deterministic execution gives."""
    found: dict[str, str] = {}
    for name in ("runvisor", "wasmtime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
