"""Recordings: they hold all that a replay needs, and whoever reads one trusts nothing in it."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies import errors
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.recording import MAX_BYTES, REPLAY_CEILING, Observation, Recording, Replay
from runvisor.policies.result import Isolation, Result, Usage
from runvisor.policies.task import Task
from runvisor.policies.trust import Trust
from runvisor.policies.values import pack

FIXED = Permissions(deterministic=True)


def recording(permissions: Permissions = FIXED, **changes: Any) -> Recording:
    task = Task("(module)", "wat", [1, 2.5], permissions, Trust.TRUSTED)
    values = {"value": pack(3.5), "stdout": "said", "stderr": "", "error": None, "instructions": 12}
    return Recording(task, {"wasmtime": "50.0.1"}, Observation(**{**values, **changes}))


def result(value: Any = 3.5, stdout: str = "said", instructions: int | None = 12, **fields: Any) -> Result:
    return Result(Isolation("wasmtime"), value, stdout, usage=Usage(instructions=instructions), **fields)


def test_what_is_written_is_read_again() -> None:
    made = recording(error=("GuestException", "unreachable", "main"))
    assert Recording.from_bytes(made.to_bytes()) == made


def test_the_same_result_is_identical_and_each_difference_is_named() -> None:
    versions = {"wasmtime": "50.0.1"}
    assert Replay.compare(recording(), result(), versions).is_identical
    replay = Replay.compare(recording(), result(4.5, "other", 13), versions)
    assert replay.differences == (
        "value: recorded 3.5, now 4.5",
        "stdout: recorded 'said', now 'other'",
        "instructions: recorded 12, now 13",
    )
    cut = result(None, error=errors.TimeLimitExceeded("too long"))
    assert not Replay.compare(recording(), cut, versions).is_identical


def test_not_a_number_is_compared_by_its_bits() -> None:
    nan = recording(value=pack(float("nan")))
    assert Replay.compare(nan, result(float("nan")), nan.versions).is_identical


def test_other_versions_are_noted() -> None:
    replay = Replay.compare(recording(), result(), {"wasmtime": "51"})
    assert replay.notes == ("wasmtime: recorded with 50.0.1, now 51",)


def test_what_was_cut_off_by_time_is_not_recorded() -> None:
    for ended in (errors.TimeLimitExceeded("too long"), errors.Cancelled("called off")):
        with pytest.raises(errors.InvalidTask):
            Observation.of(result(None, error=ended))
    with pytest.raises(errors.InvalidTask):
        Observation.of(result(instructions=None))


def test_a_replay_gives_no_more_than_its_ceiling_and_no_trust() -> None:
    task = recording().task_within(REPLAY_CEILING)
    assert task.trust is Trust.UNTRUSTED
    greedy = recording(Permissions(deterministic=True, memory_bytes=8 << 30, timeout_s=1e6, tools=("search",)))
    with pytest.raises(errors.CapabilityDenied) as caught:
        greedy.task_within(REPLAY_CEILING)
    for name in ("memory_bytes", "timeout_s", "tools"):
        assert name in caught.value.what


def damaged(**changes: Any) -> bytes:
    document = msgpack.unpackb(recording().to_bytes(), raw=False)
    document.update(changes)
    packed = msgpack.packb(document)
    assert isinstance(packed, bytes)
    return packed


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\xc1",
        b"[" * 10_000,
        damaged(kind="x"),
        damaged(format=2),
        damaged(code_sha256="0"),
        damaged(observed={"value": 1}),
        damaged(observed_sha256=""),
        damaged(task={}),
        damaged(versions=[1]),
        damaged(task={**recording().task.to_wire(), "permissions": Permissions().to_dict()}),
        damaged(task={**recording().task.to_wire(), "trust": 9}),
        bytes(MAX_BYTES + 1),
    ],
)
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    with pytest.raises(errors.InvalidTask):
        Recording.from_bytes(data)


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_any_bytes_give_a_recording_or_a_typed_error(noise: bytes, at: int, byte: int) -> None:
    changed = bytearray(recording().to_bytes())
    changed[at % len(changed)] = byte
    for data in (noise, bytes(changed)):
        with contextlib.suppress(errors.InvalidTask):
            Recording.from_bytes(data)


def test_a_recording_is_bounded() -> None:
    with pytest.raises(errors.InvalidTask, match="more than"):
        recording(stdout="x" * (MAX_BYTES + MiB)).to_bytes()
