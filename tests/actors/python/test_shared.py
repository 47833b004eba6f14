"""Large inputs in memory that the host shares."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.python.shared import mapped, size_of
from runvisor.policies.permissions import MiB
from runvisor.policies.values import pack
from tests.actors.python.driving import Session, run_task

needs_jail = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@pytest.fixture
def sealed() -> Iterator[int]:
    fd = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, b"shared bytes")
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    yield fd
    os.close(fd)


def test_each_descriptor_becomes_a_read_only_view_and_is_closed(sealed: int) -> None:
    copy = os.dup(sealed)
    (view,) = mapped([["input", 12]], [copy])
    assert bytes(view) == b"shared bytes"
    assert view.readonly
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(copy)


def test_an_empty_one_needs_no_mapping(sealed: int) -> None:
    assert mapped([["input", 0]], [os.dup(sealed)]) == [b""]


def test_nothing_shared_is_nothing() -> None:
    assert mapped(None, []) == mapped([], []) == []
    assert size_of(None) == 0
    assert size_of([["a", 1], ["b", 2]]) == 3


@pytest.fixture
def frame() -> Iterator[Any]:
    """Makes the part of a frame that carries shared inputs, and its descriptors."""
    with ExitStack() as stack:

        def make(value: Any) -> dict[str, Any]:
            buffers: list[Any] = []
            packed = pack(value, buffers)
            fds: list[int] = []
            for buffer in buffers:
                fd = os.memfd_create("input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
                stack.callback(os.close, fd)
                with os.fdopen(os.dup(fd), "wb") as sink:
                    sink.write(memoryview(buffer).cast("B"))
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
                fds.append(fd)
            shared = [["input", memoryview(buffer).nbytes] for buffer in buffers]
            return {"packed": packed, "shared": shared, "fds": fds}

        yield make


class TestInTheJail:
    pytestmark = needs_jail

    def test_a_large_array_is_seen_and_cannot_be_written(self, science: Zygote, frame: Any) -> None:
        array = np.arange(1_000_000.0)
        sent = frame({"a": array, "n": 2})
        assert sent["fds"]
        assert run_task(science, "float(inputs['a'].sum()) * inputs['n']", **sent).value == array.sum() * 2
        answer = run_task(science, "inputs['a'][0] = 1", **sent)
        assert answer.what == "ValueError: assignment destination is read-only"

    def test_it_is_mapped_and_does_not_count_as_the_tasks_memory(self, science: Zygote, frame: Any) -> None:
        sent = frame(np.ones(64 * MiB, dtype=np.uint8))
        answer = run_task(science, "int(inputs[::4096].sum())", **sent, memory_bytes=32 * MiB)
        assert answer.value == 64 * MiB // 4096

    def test_a_cell_has_shared_inputs_too_and_may_keep_them(self, session: Session, frame: Any) -> None:
        assert session.run("kept = inputs['a']\nint(kept[-1])", **frame({"a": np.arange(500_000)})).value == 499_999
        assert session.run("int(inputs[0]) + int(kept[1])", **frame(np.full(500_000, 7))).value == 8

    def test_the_memory_cannot_be_made_writable(self, science: Zygote, frame: Any) -> None:
        code = "import os\nfor fd in range(4, 64):\n    try: os.pwrite(fd, b'x', 0)\n    except OSError: pass"
        sent = frame(np.ones(MiB, dtype=np.uint8))
        assert run_task(science, code, **sent).value is None
        assert os.pread(sent["fds"][0], 8, 0) == b"\x01" * 8
