"""Inside the jail: load checked instructions into the kernel and run them on records.

The process keeps CAP_BPF (and CAP_PERFMON in the tier that may do without Spectre
hardening), nothing else. It serves one principal, one execution at a time.

A loaded program is code: nothing can change it. All that an execution can leave behind
lies in its maps, and all are set before the next one: the state whole, here, the records
and what was collected by the pool's end; each maps what it sets. So a program stays
loaded for its principal; loading it anew would cost 0.3 to 0.7 ms per execution.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from runvisor.actors.channel.frames import MAX_FRAME_BYTES, FrameBuffer, FrameSocket, Message
from runvisor.actors.ebpf import bpf
from runvisor.actors.ebpf.agreement import COLLECTED_MAP, RECORDS_MAP, STATE_MAP, block_records
from runvisor.actors.ebpf.packets.program import PacketProgram
from runvisor.actors.ebpf.relocation import relocate

_RUN_BUDGET: Final = 4_000_000
"""Instructions in one uninterruptible run: some 2 ms."""
_LOG_TAIL: Final = 4000
_READ_BYTES: Final = 1 << 16


class Program:
    """One loaded record program with its own maps.

    Args:
        request: The host's ``load`` message.
        kernel_functions: BTF ids by stand-in number, where the loop calls them.

    Raises:
        bpf.VerifierRefusal: The verifier refuses it.
        OSError: The kernel has no memory for it, or refuses bpf(2).
    """

    def __init__(self, request: Message, kernel_functions: Mapping[int, int]) -> None:
        self._block = block_records(request["record_bytes"], request["output_bytes"])
        self._chunk = max(1, min(self._block, _RUN_BUDGET // request["cost"]))
        self._has_state = request["state_bytes"] > 0
        state_bytes = max(1, request["state_bytes"])
        value_bytes = self._block * request["record_bytes"]
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as loading:
            records = bpf.create_array(value_bytes, request["blocks"], mappable=True, name=b"rv_records")
            undo.callback(os.close, records)
            state = bpf.create_array(state_bytes, mappable=True, name=b"rv_state")
            loading.callback(os.close, state)  # the mapping and the program hold it
            maps = {RECORDS_MAP: records, STATE_MAP: state}
            self.shared = [records]
            """Descriptors of the maps that the pool's end maps too."""
            if request["collects"]:
                block_bytes = self._block * (1 + request["output_bytes"])
                collected = bpf.create_array(block_bytes, request["blocks"], mappable=True, name=b"rv_collected")
                undo.callback(os.close, collected)
                maps[COLLECTED_MAP] = collected
                self.shared.append(collected)
            program = bpf.load_socket_filter(relocate(request["instructions"], maps, kernel_functions))
            undo.callback(os.close, program)
            self._run = bpf.TestRun(program)
            self._state = undo.enter_context(mmap.mmap(state, state_bytes))
            self._zeros = bytes(state_bytes)
            self._cleanup = undo.pop_all()

    def execute(self, request: Message) -> Message:
        """Run over one part of the records, which lies in the map; answer the host's ``run`` message."""
        state = request["state"]
        if state is not None:  # None: a further part of the same execution
            self._state[:] = state.ljust(len(self._state), b"\0") if state else self._zeros
        selected, left = self._run_over(request["block"], request["records"], request["deadline"])
        if left:
            return {"op": "late", "left": left}
        state = self._state[:] if request["last"] and self._has_state else b""
        return {"op": "done", "selected": selected, "state": state}

    def close(self) -> None:
        """Unload it."""
        self._cleanup.close()

    def _run_over(self, block: int, records: int, deadline: float) -> tuple[int, int]:
        """Return how many records from a block on were selected, and how many were not reached in time."""
        selected, left = 0, records
        while left:
            here = min(self._block, left)
            for first in range(0, here, self._chunk):
                if time.monotonic() >= deadline:
                    return selected, left
                end = min(first + self._chunk, here)
                selected += self._run(first, end, block)
                left -= end - first
            block += 1
        return selected, 0


class CpuClock:
    """CPU time of this thread from one execution's end to the next: reading it takes as long as a short run needs."""

    def __init__(self) -> None:
        self._last = time.thread_time()

    def spent(self) -> float:
        """Return the CPU time since this was last asked."""
        now = time.thread_time()
        spent, self._last = now - self._last, now
        return spent


def preload(options: dict[str, Any]) -> None:
    """Nothing heavy to import."""
    del options


def prepare(options: dict[str, Any]) -> dict[int, int]:
    """Return the ids of the kernel functions that the iterator loop calls."""
    return {int(number): int(btf_id) for number, btf_id in options.get("kernel_functions", {}).items()}


def serve(channel: FrameSocket, prepared: dict[int, int]) -> None:
    """Load, run and unload programs until the host closes the channel."""
    programs: dict[int, Program | PacketProgram] = {}
    clock = CpuClock()
    channel.send({"op": "hello"})
    for request in _requests(channel):
        operation, number = request["op"], request["program"]
        if operation == "run":
            channel.send(answer_to(programs[number], request, clock))
        elif operation == "load":
            loaded, answer = _load(request, prepared)
            clock.spent()
            if loaded is None:
                channel.send(answer)
            else:
                programs[number] = loaded
                channel.send(answer, loaded.shared)
        else:
            programs.pop(number).close()


def _requests(channel: FrameSocket) -> Iterator[Message]:
    """Yield the host's messages, with one system call for a short one."""
    frames = FrameBuffer(max_bytes=MAX_FRAME_BYTES)
    while data := os.read(channel.fileno(), _READ_BYTES):
        yield from frames.feed(data)


def _load(request: Message, kernel_functions: Mapping[int, int]) -> tuple[Program | PacketProgram | None, Message]:
    make = Program if request["kind"] == "record" else PacketProgram
    try:
        return make(request, kernel_functions), {"op": "loaded"}
    except bpf.VerifierRefusal as refusal:
        return None, {"op": "refused", "log": refusal.log[-_LOG_TAIL:]}
    except OSError as error:
        return None, _failure(error)


def answer_to(program: Program | PacketProgram, request: Message, clock: CpuClock) -> Message:
    """Run a program; return the answer, with the CPU time that receiving and running took."""
    try:
        answer = program.execute(request)
    except OSError as error:
        answer = _failure(error)
    answer["cpu_s"] = clock.spent()
    return answer


def _failure(error: OSError) -> Message:
    return {"op": "no memory" if error.errno == errno.ENOMEM else "failed", "what": str(error)}
