"""Sealed memory: what is taken for it, and what nobody can do to it."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runvisor.actors.channel import sealed
from runvisor.actors.channel.sealed import SealedInputs, SealedMemory, seal
from runvisor.policies.errors import ConfigError, InvalidTask, ProtocolError
from runvisor.policies.values import pack

DATA = bytes(range(256)) * 64


@pytest.fixture
def memory() -> Iterator[SealedMemory]:
    with SealedMemory.holding(memoryview(DATA)) as memory:
        yield memory


def test_it_holds_what_was_written(memory: SealedMemory) -> None:
    assert (memory.nbytes, bytes(memory.view())) == (len(DATA), DATA)


def test_nobody_can_change_it_whatever_descriptor_they_hold(memory: SealedMemory) -> None:
    fd = memory.fileno()
    for change in (
        lambda: os.pwrite(fd, b"x", 0),
        lambda: os.ftruncate(fd, 1),
        lambda: os.ftruncate(fd, 1 << 20),
        lambda: mmap.mmap(fd, len(DATA), mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
        lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0),
    ):
        with pytest.raises(OSError):  # noqa: PT011
            change()
    assert bytes(memory.view()) == DATA


def test_what_is_received_is_a_description_of_its_own_for_reading_only(memory: SealedMemory) -> None:
    with SealedMemory.received(memory.fileno()) as received:
        os.lseek(memory.fileno(), 7, os.SEEK_SET)
        assert os.lseek(received.fileno(), 0, os.SEEK_CUR) == 0
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(received.fileno(), b"x")
        assert os.fstat(received.fileno()).st_mode & 0o222 == 0
        assert bytes(received.view()) == DATA


def unsealed(seals: int) -> int:
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(fd, DATA)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@pytest.mark.parametrize("missing", [fcntl.F_SEAL_WRITE, fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SEAL])
def test_memory_that_lacks_a_seal_is_refused(missing: int) -> None:
    fd = unsealed(sealed._SEALS & ~missing)
    try:
        with pytest.raises(ProtocolError, match="not sealed"):
            SealedMemory.received(fd)
    finally:
        os.close(fd)


def test_files_pipes_and_empty_memory_are_refused() -> None:
    empty = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(empty, fcntl.F_ADD_SEALS, sealed._SEALS)
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as file:
        for fd in (empty, reader, writer, file.fileno()):
            with pytest.raises(ProtocolError):
                SealedMemory.received(fd)
    for fd in (empty, reader, writer):
        os.close(fd)


def test_too_much_of_it_is_refused_and_nothing_is_kept_open(
    memory: SealedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(sealed, "MAX_SHARED_BYTES", len(DATA) + 1)
    with pytest.raises(ProtocolError, match="more than"):
        SealedInputs.received(b"", [memory.fileno()] * 2)
    with pytest.raises(ProtocolError):
        SealedInputs.received(None, [memory.fileno()])
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_closing_twice_is_fine_and_a_view_outlives_it(memory: SealedMemory) -> None:
    view = memory.view()
    memory.close()
    memory.close()
    assert bytes(view) == DATA
    for use in (memory.fileno, memory.duplicate, memory.view):
        with pytest.raises(ConfigError, match="closed"):
            use()


def test_no_room_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InvalidTask, match="No space left"):
        SealedMemory.holding(memoryview(DATA))


def test_inputs_come_back_as_views_of_the_memory() -> None:
    buffers: list[object] = []
    array = np.arange(30_000).reshape(100, 300)
    data = pack({"table": array, "blob": DATA * 8, "n": 1}, buffers)
    with SealedInputs(data, seal(buffers)) as inputs:
        value = inputs.value()
    np.testing.assert_array_equal(value["table"], array)
    assert not value["table"].flags.writeable
    assert (value["blob"], value["n"]) == (DATA * 8, 1)
