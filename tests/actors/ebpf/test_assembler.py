"""Our own assembler: what it writes is what the kernel's format says, and it refuses what cannot be meant."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.ebpf import assembler as a
from runvisor.actors.ebpf import bpf
from runvisor.actors.jail.egress.cgroup_probe import find_obstacle

needs_bpf = pytest.mark.skipif(find_obstacle()[0] != "", reason=find_obstacle()[0])


def fields(code: bytes) -> list[tuple[int, int, int, int, int]]:
    """Take instructions apart: opcode, register written, register read, offset, immediate."""
    return [
        (opcode, registers & 15, registers >> 4, offset, immediate)
        for opcode, registers, offset, immediate in struct.iter_unpack("<BBhi", code)
    ]


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (a.copy(a.R6, a.R1), [(0xBF, 6, 1, 0, 0)]),
        (a.put(a.R1, -5), [(0xB7, 1, 0, 0, -5)]),
        (a.put_map(a.R1, 9), [(0x18, 1, 1, 0, 9), (0, 0, 0, 0, 0)]),
        (a.add(a.R2, -16), [(0x07, 2, 0, 0, -16)]),
        (a.load(1, a.R1, a.R2, 9), [(0x71, 1, 2, 9, 0)]),
        (a.load(2, a.R1, a.R2, 9), [(0x69, 1, 2, 9, 0)]),
        (a.load(4, a.R1, a.R2, 9), [(0x61, 1, 2, 9, 0)]),
        (a.load(8, a.R1, a.R2, 9), [(0x79, 1, 2, 9, 0)]),
        (a.store(8, a.R10, -16, a.R0), [(0x7B, 10, 0, -16, 0)]),
        (a.store_value(4, a.R10, -4, 7), [(0x62, 10, 0, -4, 7)]),
        (a.call(a.MAP_LOOKUP), [(0x85, 0, 0, 0, 1)]),
        (a.leave(1), [(0xB7, 0, 0, 0, 1), (0x95, 0, 0, 0, 0)]),
    ],
)
def test_each_step_is_written_as_the_standard_says(
    step: list[a.Step], wanted: list[tuple[int, int, int, int, int]]
) -> None:
    assert fields(a.assemble(step)) == wanted


@given(st.integers(0, 2**64 - 1))
def test_a_wide_value_is_written_in_two_halves(value: int) -> None:
    (first, second) = fields(a.assemble(a.put_wide(a.R1, value)))
    assert (first[4] & 0xFFFFFFFF) | (second[4] & 0xFFFFFFFF) << 32 == value


@given(st.integers(0, 50))
def test_a_jump_counts_the_instructions_between(between: int) -> None:
    steps = [a.put(a.R0, 0)] * between
    code = a.assemble(a.jump_if_same(a.R1, a.R2, "end"), *steps, a.label("end"), a.leave(0))
    assert fields(code)[0] == (0x1D, 1, 2, between, 0)


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([a.jump_if_equal(a.R0, 0, "nowhere")], "no label"),
        ([a.label("here"), a.label("here")], "twice"),
        ([a.label("back"), a.jump_if_above(a.R0, a.R1, "back")], "behind"),
    ],
)
def test_what_cannot_be_meant_is_refused(parts: list[list[a.Step]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        a.assemble(*parts)


@needs_bpf
@pytest.mark.kernel
def test_the_kernel_takes_every_kind_of_step_and_does_what_it_says() -> None:
    code = a.assemble(
        a.copy(a.R6, a.R1),
        a.put_wide(a.R1, 1 << 40),
        a.store(8, a.R10, -8, a.R1),
        a.load(8, a.R2, a.R10, -8),
        a.jump_if_same(a.R1, a.R2, "same"),
        a.leave(1),
        a.label("same"),
        a.load(4, a.R1, a.R6, 48),  # skb->cb[0]
        a.jump_if_not_equal(a.R1, 41, "other"),
        a.store_value(1, a.R10, -8, 9),
        a.load(1, a.R0, a.R10, -8),
        a.jump_if_equal(a.R0, 9, "nine"),
        a.leave(2),
        a.label("nine"),
        a.add(a.R0, 33),
        a.put(a.R3, 1),
        a.jump_if_above(a.R0, a.R3, "above"),
        a.leave(3),
        a.label("above"),
        a.leave(42),
        a.label("other"),
        a.leave(7),
    )
    program = bpf.load_socket_filter(code)
    try:
        run = bpf.TestRun(program)
        assert (run(41, 0, 0), run(40, 0, 0)) == (42, 7)
    finally:
        os.close(program)
