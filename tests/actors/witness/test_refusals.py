"""The translation of a filter says what the filter itself says, of every call."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.ebpf import bpf
from runvisor.actors.ebpf.compiler import Compiler
from runvisor.actors.ebpf.maps import Map, MapKind
from runvisor.actors.ebpf.relocation import relocate
from runvisor.actors.jail.seccomp import filter_code
from runvisor.actors.runtime import PoolSize
from runvisor.actors.witness.programs import FILTERS
from runvisor.actors.witness.refusals import decision

NUMBER, ARGUMENTS = 15, (14, 13, 12, 7, 9, 8)
REGISTERS = 21
ARCH = 0xC000003E
CODES = {kind: filter_code(kind) for kind in FILTERS}
NAMES = tuple(f"at_filter_{number}" for number in range(len(FILTERS)))
TEXT = """
u64 rv_map(u64, u64) asm("llvm.bpf.pseudo");
static void *(*rv_lookup)(u64, const void *) = (void *)1;
"""
WRAPPED = """
int at_NAME(struct __sk_buff *skb)
{
    u32 zero = 0;
    u64 *regs = rv_lookup(rv_map(1, 0), &zero);
    return regs ? NAME(regs[15], regs) : 0;
}
"""


def answer_of(code: bytes, number: int, arguments: list[int]) -> int:
    """Run a filter by the book: Documentation/networking/filter.rst."""
    data = struct.pack("<IIQ6Q", number, ARCH, 0, *arguments)
    steps = list(struct.iter_unpack("<HBBI", code))
    at = accumulator = 0
    while True:
        operation, if_so, if_not, value = steps[at]
        at += 1
        if operation == 0x06:
            return int(value)
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value}[operation]
            at += if_so if holds else if_not


@dataclass
class Translation:
    """A filter that the kernel runs as a program of ours."""

    run: bpf.BareRun
    registers: Map

    def answer_of(self, number: int, arguments: list[int]) -> int:
        words = [0] * REGISTERS
        words[NUMBER] = number
        for place, value in zip(ARGUMENTS, arguments, strict=True):
            words[place] = value
        self.registers.update(bytes(4), struct.pack(f"={REGISTERS}Q", *words))
        return self.run()


@pytest.fixture(scope="module")
def translations() -> Iterator[list[Translation]]:
    decisions = [decision(name.removeprefix("at_"), CODES[kind]) for name, kind in zip(NAMES, FILTERS, strict=True)]
    wrapped = [WRAPPED.replace("NAME", name.removeprefix("at_")) for name in NAMES]
    compiler = Compiler(PoolSize(minimum=0, maximum=1))
    try:
        compiler.start()
        codes = compiler.instructions("\n".join([TEXT, *decisions, *wrapped]), "", 30.0, lambda: None, NAMES)
    finally:
        compiler.close()
    with ExitStack() as stack:
        registers = stack.enter_context(Map(MapKind.ARRAY, 4, 8 * REGISTERS, 1))
        made: list[Translation] = []
        for name in NAMES:
            program = bpf.load_socket_filter(relocate(codes[name], {0: registers.fd}))
            stack.callback(os.close, program)
            made.append(Translation(bpf.BareRun(program, 64), registers))
        yield made


def words() -> st.SearchStrategy[int]:
    """Values of an argument: those that rules compare with, with and without something in the upper half."""
    near = st.sampled_from([0, 1, 2, 4, 6, 15, 0x541B, 0x10000, 0x3D0F00, 0x5412, 1030, 21, 66])
    return near | st.builds(lambda low, high: high << 32 | low, near, st.integers(0, 3)) | st.integers(0, (1 << 64) - 1)


@given(
    number=st.integers(0, 512) | st.sampled_from([16, 41, 42, 53, 54, 55, 56, 72, 157, 302, 435, 0xFFFFFFFF, 1 << 30]),
    arguments=st.lists(words(), min_size=6, max_size=6),
)
def test_the_kernel_says_of_a_translated_filter_what_the_filter_says(
    translations: list[Translation], number: int, arguments: list[int]
) -> None:
    for translation, kind in zip(translations, FILTERS, strict=True):
        assert translation.answer_of(number, arguments) == answer_of(CODES[kind], number, arguments)


def test_every_number_is_decided_alike(translations: list[Translation]) -> None:
    for translation, kind in zip(translations, FILTERS, strict=True):
        for number in range(600):
            assert translation.answer_of(number, [0] * 6) == answer_of(CODES[kind], number, [0] * 6), number


@pytest.mark.parametrize("instruction", [(0x20, 0, 0, 8), (0x87, 0, 0, 0), (0x20, 0, 0, 18)])
def test_a_filter_that_asks_for_something_else_is_not_guessed_at(instruction: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="filter"):
        decision("one", struct.pack("<HBBI", *instruction))
