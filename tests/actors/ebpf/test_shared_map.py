"""An executor shares maps of the kernel, and nothing that it could cut short."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runvisor.actors.ebpf import bpf
from runvisor.actors.ebpf.shared_map import SharedMap
from runvisor.policies.errors import ProtocolError


def memory(size: int, seals: int) -> int:
    fd = os.memfd_create("map", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


@pytest.mark.root
@pytest.mark.kernel
def test_a_map_of_the_kernel_is_seen_from_both_sides() -> None:
    fd = bpf.create_array(8, 100, mappable=True)
    shared = SharedMap(os.dup(fd), 800)
    shared.view[:3] = b"abc"
    assert bpf.Element(fd, 8).read() == b"abc".ljust(8, b"\0")
    shared.close()
    with pytest.raises(ProtocolError, match="not of 8000 bytes"):
        SharedMap(fd, 8000)


@pytest.mark.parametrize(
    "other",
    [
        lambda: memory(8192, 0),
        lambda: memory(8192, fcntl.F_SEAL_GROW),
        lambda: memory(4096, fcntl.F_SEAL_SHRINK),
        lambda: os.open(__file__, os.O_RDWR),
        lambda: os.open("/dev/zero", os.O_RDWR),
        lambda: os.open("/proc/self/status", os.O_RDONLY),
        lambda: os.open(Path.home(), os.O_RDONLY),
    ],
)
def test_anything_that_could_be_cut_short_is_refused_and_closed(other: Callable[[], int]) -> None:
    fd = other()
    with pytest.raises(ProtocolError):
        SharedMap(fd, 8000)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
