"""Executors that do not keep to what was agreed, and a pool that closes while one is lent."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.ebpf.compiler import Artifact
from runvisor.actors.ebpf.executors import Executor
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.ebpf.work import RecordWork
from runvisor.actors.jail.child import ChildExit
from runvisor.policies.errors import WorkerCrashed
from runvisor.policies.permissions import MiB
from runvisor.policies.record_answers import Answer
from runvisor.policies.record_inputs import RecordInputs
from runvisor.policies.records import parse_program
from tests.actors.ebpf.test_collected import memory

RECORDS = np.arange(10, dtype="<u4")
SOURCE = "struct state { u64 xs[1048576]; };\nint on_record(struct record *r, struct state *s) { return 1; }"
PROGRAM = parse_program(SOURCE, RECORDS.dtype)
ARTIFACT = Artifact(b"instructions", 10, 4, PROGRAM.state_bytes)
JOIN_S = 20.0


class Impostor:
    """A child whose other end the test plays."""

    def __init__(self) -> None:
        self.pid = 1 << 22  # beyond PID_MAX_LIMIT, so nobody's: an executor's process is moved from core to core
        self.channel, self.peer = FrameSocket.pair()
        self.peer.send({"op": "hello"})

    def exit(self, timeout_s: float) -> ChildExit | None:
        return None

    def close(self) -> None:
        self.channel.close()
        self.peer.close()


def work(artifact: Artifact = ARTIFACT, state: bytes = b"") -> RecordWork:
    inputs = RecordInputs.of({"records": RECORDS}, SOURCE)
    return RecordWork(artifact, PROGRAM, RECORDS, state, Answer(PROGRAM, inputs, 1 << 30))


@pytest.fixture
def impostor() -> Iterator[tuple[Executor, FrameSocket]]:
    """An executor, and what it is connected to."""
    child = Impostor()
    executor = Executor(child)  # type: ignore[arg-type]
    yield executor, child.peer
    executor.close()


def loads(peer: FrameSocket, op: str = "loaded", maps: int = 1, **more: Any) -> None:
    """Answer a request to load a program."""
    peer.receive()
    fds = [memory(1 << 19) for _ in range(maps)]
    peer.send({"op": op, **more}, fds)
    for fd in fds:
        os.close(fd)


def run_and_echo(executor: Executor, peer: FrameSocket, state: bytes) -> Message:
    """Have a program loaded and run by an executor that leaves the state as it was."""

    def serve() -> None:
        loads(peer)
        request = peer.receive()
        assert request is not None
        state = request["state"] or bytes(PROGRAM.state_bytes)
        peer.send({"op": "done", "selected": 0, "cpu_s": 0.0, "state": state})

    answering = threading.Thread(target=serve)
    answering.start()
    answer = executor.run(work(state=state), soon() + JOIN_S, lambda: None)
    answering.join()
    return answer


def in_time(execute: Callable[[], Message], peer: FrameSocket) -> Message:
    """Return what comes of an execution that may hang; if it does, that fails, and the thread is set free."""
    answers: list[Message] = []
    thread = threading.Thread(target=lambda: answers.append(execute()), daemon=True)
    thread.start()
    thread.join(JOIN_S)
    is_hanging = thread.is_alive()
    if is_hanging:
        peer.shutdown()
        thread.join(JOIN_S)
    assert not is_hanging
    return answers[0]


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def soon() -> float:
    """Return a deadline that nothing has to keep."""
    return time.monotonic() + 0.2


def test_an_executor_that_reads_no_run_ends_at_the_deadline(impostor: tuple[Executor, FrameSocket]) -> None:
    executor, peer = impostor
    answering = threading.Thread(target=loads, args=(peer,))
    answering.start()
    state = bytes(PROGRAM.state_bytes)  # more than a socket holds
    answer = in_time(lambda: executor.run(work(state=state), soon(), lambda: None), peer)
    answering.join()
    assert (answer, executor.dead) == ({"op": "silent"}, True)


def test_a_state_that_is_larger_than_a_socket_holds_arrives_whole(impostor: tuple[Executor, FrameSocket]) -> None:
    executor, peer = impostor
    state = np.random.default_rng(1).bytes(PROGRAM.state_bytes)
    assert run_and_echo(executor, peer, state)["state"] == state


def test_an_executor_that_reads_no_unload_ends_at_the_deadline(impostor: tuple[Executor, FrameSocket]) -> None:
    executor, peer = impostor
    run_and_echo(executor, peer, b"")
    with contextlib.suppress(BlockingIOError):  # until nothing more goes into the socket
        while executor._channel.send_some(memoryview(bytes(4096))):
            pass
    large = replace(ARTIFACT, instructions=b"others", state_bytes=128 * MiB)  # what is loaded makes room for it
    answer = in_time(lambda: executor.run(work(large), soon(), lambda: None), peer)
    assert (answer, executor.dead) == ({"op": "silent"}, True)


def test_an_executor_that_drips_its_answer_ends_at_the_deadline(impostor: tuple[Executor, FrameSocket]) -> None:
    executor, peer = impostor
    answered = threading.Event()

    def drip() -> None:
        peer.receive()
        with contextlib.suppress(OSError):
            peer.send_some(memoryview((1000).to_bytes(4, "little")))
            while not answered.wait(0.05):  # never as long as a deadline
                peer.send_some(memoryview(b"x"))

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        answer = in_time(lambda: executor.run(work(), soon(), lambda: None), peer)
    finally:
        answered.set()
        dripping.join()
    assert (answer, executor.dead) == ({"op": "silent"}, True)


@pytest.mark.parametrize(
    "answer",
    [
        {"op": "silent"},
        {"op": "out of memory"},
        {"op": "done"},
        {"op": 7},
        {"op": "refused"},
        {"op": "refused", "log": 1},
    ],
)
def test_an_executor_that_answers_what_was_not_agreed_is_ended(
    impostor: tuple[Executor, FrameSocket], answer: Message
) -> None:
    executor, peer = impostor
    answering = threading.Thread(target=loads, args=(peer,), kwargs={"maps": 0, **answer})
    answering.start()
    with pytest.raises(WorkerCrashed, match="the executor failed") as caught:
        executor.run(work(), soon() + JOIN_S, lambda: None)
    answering.join()
    assert (caught.value.details, executor.dead) == ({"started": False}, True)


@pytest.mark.parametrize(
    "lie",
    [{"op": "out of memory"}, {"state": b"short"}, {"state": None}, {"selected": len(RECORDS) + 1}, {"cpu_s": "1"}],
)
def test_an_executor_that_runs_to_another_end_than_was_agreed_is_ended(
    impostor: tuple[Executor, FrameSocket], lie: Message
) -> None:
    executor, peer = impostor

    def serve() -> None:
        loads(peer)
        peer.receive()
        peer.send({"op": "done", "selected": 0, "cpu_s": 0.0, "state": bytes(PROGRAM.state_bytes), **lie})

    answering = threading.Thread(target=serve)
    answering.start()
    with pytest.raises(WorkerCrashed, match="the executor failed") as caught:
        executor.run(work(), soon() + JOIN_S, lambda: None)
    answering.join()
    assert (caught.value.details, executor.dead) == ({"started": True}, True)


@pytest.mark.parametrize(("collects", "shared"), [(False, 0), (True, 0), (True, 1)])
def test_an_executor_that_shares_other_maps_than_its_own_is_ended(
    impostor: tuple[Executor, FrameSocket], collects: bool, shared: int
) -> None:
    executor, peer = impostor
    answering = threading.Thread(target=loads, args=(peer, "loaded", shared))
    answering.start()
    before = descriptors()
    with pytest.raises(WorkerCrashed, match=f"shares {shared} maps") as caught:
        executor.run(work(replace(ARTIFACT, collects=collects)), soon() + JOIN_S, lambda: None)
    answering.join()
    assert descriptors() <= before
    assert (caught.value.details, executor.dead) == ({"started": False}, True)


def test_a_program_that_was_refused_leaves_the_executor_in_service(impostor: tuple[Executor, FrameSocket]) -> None:
    executor, peer = impostor
    answering = threading.Thread(target=loads, args=(peer, "refused", 0), kwargs={"log": "no"})
    answering.start()
    assert executor.run(work(), soon() + JOIN_S, lambda: None) == {"op": "refused", "log": "no"}
    answering.join()
    assert not executor.dead


@pytest.mark.kernel
@pytest.mark.root
def test_closing_while_an_executor_is_lent_is_not_what_its_borrower_hears_of(own: tuple[EbpfRuntime, Any]) -> None:
    runtime, _ = own
    tier = runtime._tiers["bpf+perfmon"]

    def borrow() -> None:
        with tier.lend("alice") as executor:
            runtime.close()
            assert executor.dead
            raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        borrow()
    assert tier.load().busy == 0
