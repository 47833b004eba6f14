"""The raw system call, against the real kernel."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.ebpf import bpf
from runvisor.actors.ebpf.probe import has_may_goto, probe_ebpf

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not probe_ebpf().available, reason=probe_ebpf().detail),
]


def code(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<BBhi", *fields) for fields in instructions)


RETURN_7 = code((0xB7, 0, 0, 7), (0x95, 0, 0, 0))
READ_NULL = code((0xB7, 1, 0, 0), (0x61, 0x10, 0, 0), (0x95, 0, 0, 0))
SUM_OF_WORDS = code(
    (0x61, 0x10, 48, 0),  # r0 = skb->cb[0]
    (0x61, 0x12, 52, 0),  # r2 = skb->cb[1]
    (0x0F, 0x20, 0, 0),
    (0x61, 0x12, 56, 0),
    (0x0F, 0x20, 0, 0),
    (0x95, 0, 0, 0),
)


@pytest.fixture
def array() -> Iterator[int]:
    fd = bpf.create_array(4096, 2, mappable=True)
    yield fd
    os.close(fd)


def test_an_array_is_zeroed_and_can_be_written_whole() -> None:
    fd = bpf.create_array(5)
    try:
        element = bpf.Element(fd, 5)
        assert element.read() == bytes(5)
        element.write(b"hello")
        assert element.read() == b"hello"
        element.write(b"no")
        assert element.read() == b"no\0\0\0"
        with pytest.raises(ValueError, match="too long"):
            element.write(b"longer")
    finally:
        os.close(fd)


def test_elements_of_a_mapped_array_follow_each_other(array: int) -> None:
    with mmap.mmap(array, 8192) as mapped:
        mapped[:5] = b"first"
        mapped[4096:4102] = b"second"
        assert bpf.Element(array, 4096).read()[:5] == b"first"


def test_a_run_gets_its_words_and_gives_its_value() -> None:
    fd = bpf.load_socket_filter(SUM_OF_WORDS)
    try:
        run = bpf.TestRun(fd)
        assert [run(1, 2, 3), run(10, 20, 30)] == [6, 60]
    finally:
        os.close(fd)


def test_a_refused_program_comes_with_the_verifiers_words() -> None:
    with pytest.raises(bpf.VerifierRefusal) as caught:
        bpf.load_socket_filter(READ_NULL)
    assert "invalid mem access" in caught.value.log


def test_a_bad_descriptor_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="bpf map lookup"):
        bpf.Element(1023, 8).read()
    with pytest.raises(OSError, match="bpf test run"):
        bpf.TestRun(1023)(0, 0, 0)


def test_an_array_beyond_memory_is_refused_and_not_a_crash() -> None:
    with pytest.raises(OSError, match="bpf map create"):
        bpf.create_array(1 << 31)


def test_the_loop_instruction_is_found_by_trying() -> None:
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    assert has_may_goto() == (release >= (6, 9))


def test_loading_leaves_nothing_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    os.close(bpf.load_socket_filter(RETURN_7))
    with pytest.raises(bpf.VerifierRefusal):
        bpf.load_socket_filter(READ_NULL)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
