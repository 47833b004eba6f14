"""What one execution leaves behind is gone before the next: the pool's side of a loaded program."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator

import numpy as np
import pytest

from runvisor.actors.ebpf.agreement import BLOCK_BYTES, block_records, blocks_for
from runvisor.actors.ebpf.compiler import Artifact
from runvisor.actors.ebpf.loaded import LoadedPrograms, LoadedRecords, wanted_blocks
from runvisor.policies.records import MAX_RECORD_BYTES, Records, parse_program

EVENT = np.dtype([("id", "<u4"), ("kind", "<u4"), ("value", "<u8")])
PROGRAM = parse_program("int on_record(struct record *r, struct state *s) { return 1; }", EVENT)
ARTIFACT = Artifact(b"instructions", 10, EVENT.itemsize, 0)
BYTES = 2 * BLOCK_BYTES


@pytest.fixture
def memory() -> Iterator[int]:
    """Plain memory where the kernel's map would be."""
    fd = os.memfd_create("map", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    yield fd
    os.close(fd)


def content(fd: int) -> bytes:
    with mmap.mmap(fd, BYTES) as mapped:
        return bytes(mapped)


def made(fd: int, artifact: Artifact = ARTIFACT, number: int = 0) -> LoadedRecords:
    return LoadedRecords(number, artifact, 2, [os.dup(fd)])


def written(loaded: LoadedRecords, records: Records) -> None:
    loaded.clear(len(records))
    assert loaded.write(PROGRAM, records, 0) == 0


def test_records_lie_at_the_front_and_zeros_behind_them(memory: int) -> None:
    loaded = made(memory)
    many, few = np.full(5000, 0xFF, "u1").view("u1"), np.ones(3, EVENT)
    written(loaded, np.frombuffer(many.tobytes()[: 16 * 312], EVENT))
    written(loaded, few)
    assert content(memory) == few.tobytes().ljust(BYTES, b"\0")
    loaded.close()


def test_nothing_of_a_long_input_is_left_whatever_the_order(memory: int) -> None:
    loaded = made(memory)
    random = np.random.default_rng(1)
    for count in random.integers(0, loaded.capacity, 20).tolist():
        records = np.frombuffer(random.bytes(count * 16), EVENT)
        written(loaded, records)
        assert content(memory) == records.tobytes().ljust(BYTES, b"\0")
    loaded.close()


def test_parts_go_to_blocks_of_their_own_one_behind_the_other(memory: int) -> None:
    loaded = made(memory)
    records = np.frombuffer(np.random.default_rng(2).bytes(loaded.capacity * 16), EVENT)
    loaded.clear(len(records))
    firsts = range(0, len(records), loaded.part)
    assert [loaded.write(PROGRAM, records[n : n + loaded.part], n) for n in firsts] == [0, 1]
    assert content(memory) == records.tobytes()
    loaded.close()


def test_closing_gives_the_mapping_and_the_descriptor_back(memory: int) -> None:
    before = len(list(os.scandir("/proc/self/fd")))
    made(memory).close()
    assert len(list(os.scandir("/proc/self/fd"))) <= before
    with pytest.raises(OSError, match="Bad file"):
        LoadedRecords(0, ARTIFACT, 2, [1023])


def test_blocks_follow_each_other_without_gaps() -> None:
    for size in (*range(1, 70), 1000, 32_767, MAX_RECORD_BYTES):
        records = block_records(size)
        assert records >= 8
        assert records * size % 8 == 0
        assert records * size <= BLOCK_BYTES
        assert blocks_for(records, size) == 1
        assert blocks_for(records + 1, size) == 2
        assert wanted_blocks(0, size) == 1
        assert wanted_blocks(3 * records, size) == 4
        assert wanted_blocks(1 << 40, size) == 16


def test_a_program_is_found_while_its_map_is_large_enough(memory: int) -> None:
    programs = LoadedPrograms()
    loaded = made(memory)
    programs.add(ARTIFACT, loaded)
    assert ARTIFACT in programs
    assert programs.find(ARTIFACT, 1) is loaded
    assert programs.find(ARTIFACT, 3) is None
    assert list(programs.surplus(ARTIFACT, 0)) == [loaded], "the smaller one goes before a larger is loaded"
    loaded.close()


def test_the_programs_used_longest_ago_go_first(memory: int) -> None:
    programs = LoadedPrograms()
    artifacts = [Artifact(bytes([n]), 1, 16, 0) for n in range(33)]
    for number, artifact in enumerate(artifacts[:32]):
        programs.add(artifact, made(memory, artifact, number))
    assert programs.find(artifacts[0], 1) is not None
    gone = list(programs.surplus(artifacts[32], 0))
    assert [loaded.number for loaded in gone] == [1]
    for loaded in gone:
        loaded.close()
    programs.close()


def test_programs_of_one_executor_share_a_bound_of_memory(memory: int) -> None:
    programs = LoadedPrograms()
    large = Artifact(b"large", 1, 16, 60 << 20)
    programs.add(large, made(memory, large))
    assert list(programs.surplus(Artifact(b"next", 1, 16, 60 << 20), 60 << 20)) == []
    gone = list(programs.surplus(Artifact(b"next", 1, 16, 90 << 20), 90 << 20))
    assert len(gone) == 1
    gone[0].close()
