"""What programs collect, from the side that takes it: zeros before, the right bytes after, and a lying executor."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from runvisor.actors.channel.frames import Message
from runvisor.actors.ebpf.agreement import block_records
from runvisor.actors.ebpf.collected import CollectedMap
from runvisor.actors.ebpf.compiler import Artifact
from runvisor.actors.ebpf.loaded import LoadedRecords
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.ebpf.work import RecordWork
from runvisor.actors.runtime import Watch
from runvisor.policies.errors import GuestSyntaxError, ProtocolError
from runvisor.policies.permissions import Permissions
from runvisor.policies.record_answers import Answer
from runvisor.policies.record_inputs import RecordInputs
from runvisor.policies.records import parse_program
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

SOURCE = """struct output { u32 twice; };
int on_record(struct record *r, struct state *s, struct output *o) { return 1; }"""
RECORDS = np.arange(300_000, dtype="<u4")
PROGRAM = parse_program(SOURCE, RECORDS.dtype)
ARTIFACT = Artifact(b"instructions", 10, 4, 0, 4, True)
BLOCK = block_records(4, 4)
BLOCKS = 4


def inputs(count: int) -> RecordInputs:
    return RecordInputs.of({"records": RECORDS[:count], "return": ["indices", "outputs"]}, SOURCE)


def memory(size: int) -> int:
    fd = os.memfd_create("map", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


@pytest.fixture
def collected() -> Iterator[int]:
    """Plain memory where the kernel's map would be."""
    fd = memory(CollectedMap.bytes_for(ARTIFACT, BLOCKS))
    yield fd
    os.close(fd)


def play(fd: int, block: int, records: int) -> None:
    """Do what the program would: mark every second record and write its output."""
    with mmap.mmap(fd, 0) as shared:
        for done in range(0, records, BLOCK):
            here = min(BLOCK, records - done)
            begin = (block * BLOCK + done) * 5
            shared[begin : begin + here] = bytes([0, 1] * BLOCK)[:here]
            outputs = np.arange(done, done + here, dtype="<u4") * 2
            shared[begin + BLOCK : begin + BLOCK + 4 * here] = outputs.tobytes()


def is_zero(fd: int) -> bool:
    with mmap.mmap(fd, 0) as shared:
        return not any(memoryview(shared).tobytes().strip(b"\0"))


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 3, 2 * BLOCK])
def test_marks_and_outputs_are_found_in_every_block_and_zeroed_behind_it(collected: int, count: int) -> None:
    shared = CollectedMap(ARTIFACT, BLOCKS, os.dup(collected))
    answer = Answer(PROGRAM, inputs(count), 1 << 30)
    shared.expect(1, count)
    play(collected, 1, count)
    shared.hand_over(answer, 0)
    value, _ = answer.value(0, b"")
    assert value["indices"].tolist() == list(range(1, count, 2))
    assert value["outputs"]["twice"].tolist() == list(range(2, 2 * count, 4))
    assert is_zero(collected)
    shared.close()


def test_what_a_failed_execution_left_is_gone_before_the_next(collected: int) -> None:
    shared = CollectedMap(ARTIFACT, BLOCKS, os.dup(collected))
    for block in (0, 2):
        shared.expect(block, BLOCK)
        play(collected, block, BLOCK)
    assert not is_zero(collected)
    shared.clear()
    assert is_zero(collected)
    shared.close()


class Liar:
    """An executor that answers the same whatever it is asked."""

    def __init__(self, answer: Message) -> None:
        self._answer = answer

    def __call__(self, request: Message) -> Message:
        return self._answer

    def send(self, request: Message) -> None:
        """Nothing is done about it."""

    def answer(self) -> Message:
        return self._answer


def run(answer: Message) -> Any:
    wanted = Answer(PROGRAM, inputs(10), 1 << 20)
    work = RecordWork(ARTIFACT, PROGRAM, RECORDS[:10], b"", wanted)
    fds = [memory(BLOCK * 4), memory(CollectedMap.bytes_for(ARTIFACT, 1))]
    loaded = LoadedRecords(0, ARTIFACT, 1, fds)
    try:
        said = work.run(loaded, Liar(answer))
        return wanted.value(said.get("selected"), said.get("state"))[0]
    finally:
        loaded.close()


HONEST = {"op": "done", "selected": 4, "cpu_s": 0.1, "state": b""}


def test_what_the_map_says_counts_and_not_what_an_executor_adds() -> None:
    assert run(HONEST)["selected"] == 0


@pytest.mark.parametrize(
    "lie",
    [
        {"selected": "4"},
        {"selected": None},
        {"selected": 11},
        {"selected": -1},
        {"cpu_s": "0.1"},
        {"cpu_s": None},
        {"state": b"1"},
        {"state": "text"},
        {"state": None},
        {"cpu_s": float("nan")},
        {"cpu_s": -1.0},
        {"op": "out of memory"},
        {"op": "silent"},
        {"op": "refused"},
        {"op": ["done"]},
        {"op": None},
    ],
)
def test_an_answer_that_cannot_be_is_refused(lie: Message) -> None:
    with pytest.raises(ProtocolError):
        run({**HONEST, **lie})


# In the kernel


def collect(runtime: EbpfRuntime, body: str, records: Any, trust: Trust = Trust.VERIFIED) -> Result:
    """Run a program with a state and an output, always as the same principal."""
    source = f"""struct state {{ u64 seen; }};
struct output {{ u8 byte; }};
int on_record(struct record *r, struct state *s, struct output *o) {{ {body} return 0; }}"""
    task = Task(source, "c-record", {"records": records, "return": ["indices"]})
    return runtime.execute(task, "record", Grant("mallory", trust, Permissions()), Watch())


@pytest.mark.kernel
@pytest.mark.root
def test_a_program_that_writes_before_its_outputs_finds_nothing_of_its_last_execution(runtime: EbpfRuntime) -> None:
    for back in (1, BLOCK // 2, BLOCK):  # the last mark of the block, one within, and the first
        body = f"u8 *mark = (u8 *)o - {back}; s->seen += *mark; *mark = 1; o->byte = 1;"
        for _ in range(3):
            value: Any = collect(runtime, body, RECORDS[:1]).unwrap()
            assert value["state"] == {"seen": 0}


@pytest.mark.kernel
@pytest.mark.root
def test_a_mark_that_was_forged_in_one_execution_selects_nothing_in_the_next(runtime: EbpfRuntime) -> None:
    body = "if (r->value) ((u8 *)o)[-1] = 1;"
    assert collect(runtime, body, np.ones(1, "<u4")).ok
    value: Any = collect(runtime, body, np.zeros(BLOCK, "<u4")).unwrap()
    assert (value["selected"], value["indices"].tolist()) == (0, [])


@pytest.mark.kernel
@pytest.mark.root
@pytest.mark.parametrize("trust", [Trust.UNTRUSTED, Trust.VERIFIED])
@pytest.mark.parametrize(
    "body",
    [
        "s->seen = ((u8 *)o)[1];",
        f"((u8 *)o)[{-BLOCK - 1}] = 1;",
        "((u8 *)o)[-(s64)r->value] = 1;",
        "s->seen = ((u8 *)r)[-1];",
        "s->seen = ((u8 *)r)[4];",
        "s->seen = ((u8 *)s)[-1];",
        "s->seen = ((u8 *)s)[8];",
    ],
)
def test_nothing_else_lies_within_reach(runtime: EbpfRuntime, body: str, trust: Trust) -> None:
    assert isinstance(collect(runtime, body, RECORDS[:8], trust).error, GuestSyntaxError)
