"""Programs of a cgroup, against the real kernel: they stay when whoever attached them lets go."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.ebpf import bpf, cgroup_attach
from runvisor.actors.ebpf.assembler import assemble, leave
from runvisor.actors.jail import cgroups
from runvisor.actors.jail.egress.cgroup_probe import find_obstacle

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(find_obstacle()[0] != "", reason=find_obstacle()[0]),
]
PACKETS_OUT, SOCKETS = 1, 2


@pytest.fixture
def group() -> Iterator[int]:
    parent = cgroups.find_v2_parent()
    assert parent is not None
    folder = parent / cgroups.group_name(os.getpid(), time.monotonic_ns(), "attach-test")
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)
    folder.rmdir()


@pytest.fixture
def program() -> Iterator[int]:
    fd = bpf.load_program(assemble(leave(1)), bpf.ProgramType.CGROUP_SOCKET, attach_type=SOCKETS)
    yield fd
    if Path(f"/proc/self/fd/{fd}").exists():
        os.close(fd)


def test_a_program_stays_when_its_descriptor_is_closed(group: int, program: int) -> None:
    assert cgroup_attach.attached(group, SOCKETS) == ()
    cgroup_attach.attach(group, program, SOCKETS)
    os.close(program)
    assert len(cgroup_attach.attached(group, SOCKETS)) == 1


def test_several_are_attached_beside_each_other_and_one_can_be_taken_away(group: int, program: int) -> None:
    other = bpf.load_program(assemble(leave(1)), bpf.ProgramType.CGROUP_SOCKET, attach_type=SOCKETS)
    for fd in (program, other):
        cgroup_attach.attach(group, fd, SOCKETS)
    both = cgroup_attach.attached(group, SOCKETS)
    assert len(set(both)) == 2
    cgroup_attach.detach(group, program, SOCKETS)
    assert cgroup_attach.attached(group, SOCKETS) == both[1:]
    with pytest.raises(OSError, match="detach"):
        cgroup_attach.detach(group, program, SOCKETS)
    os.close(other)


def test_a_program_is_attached_only_where_it_was_loaded_for(group: int, program: int) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        cgroup_attach.attach(group, program, PACKETS_OUT)
    assert cgroup_attach.attached(group, PACKETS_OUT) == ()
