"""Running a packet program over a capture, window by window: the pool's side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from runvisor.actors.channel.frames import Message
from runvisor.actors.ebpf.answers import checked_run, checked_state
from runvisor.actors.ebpf.loaded import LoadedProgram
from runvisor.actors.ebpf.packets.agreement import (
    CAPTURE_BYTES,
    CURSOR,
    VERDICT_BYTES,
    VERDICTS_AT,
    WINDOW_BYTES,
    ZEROS_AT,
)
from runvisor.actors.ebpf.work import Ask
from runvisor.policies.captures import PACKET_HEADER_BYTES, Capture, check_packet
from runvisor.policies.errors import InvalidTask, ProtocolError
from runvisor.policies.packets import PACKET_BYTES, Kind, PacketInputs, Verdicts

_ROOM: Final = 1
"""Every window is of one size."""
_BYTES_A_PACKET: Final = 256
"""About; for telling short runs from long ones."""


@dataclass(frozen=True, slots=True)
class PacketArtifact:
    """A compiled and scanned packet program."""

    instructions: bytes
    """As compiled: maps by index, iterator functions by stand-in numbers."""
    cost: int
    """The most instructions that one packet takes."""
    kind: Kind
    state_bytes: int


class LoadedWindow(LoadedProgram):
    """A loaded packet program and its window.

    Args:
        number: What the executor calls it.
        artifact: What it was loaded from.
        window_fd: The map's descriptor; taken over.
    """

    def __init__(self, number: int, artifact: PacketArtifact, window_fd: int) -> None:
        super().__init__(number, _ROOM, WINDOW_BYTES, window_fd, artifact.state_bytes + CURSOR.size)
        self._is_reached = artifact.kind == "filter"
        self._written = 0
        self._verdicts = 0

    def clear(self, size: int) -> None:
        """Begin an execution: put zeros wherever the last one may have left something.

        A filter has the window's address, and so may write anywhere in it; an XDP program
        has not, and what the harness writes there `write` takes away.

        Args:
            size: Bytes of the capture.
        """
        if self._is_reached:
            np.frombuffer(self.view, np.uint8)[min(size, CAPTURE_BYTES) :].fill(0)

    def write(self, part: memoryview) -> None:
        """Show a part of a capture, and zeros where the last part left more."""
        size = len(part)
        self.view[:size] = part
        if self._written > size:
            self.view[size : self._written] = bytes(self._written - size)
        self._written = size
        self.view[ZEROS_AT : ZEROS_AT + 8] = bytes(8)
        used = VERDICT_BYTES * self._verdicts
        self.view[VERDICTS_AT : VERDICTS_AT + used] = bytes(used)
        self._verdicts = size // PACKET_HEADER_BYTES

    def verdicts(self, packets: int) -> Verdicts:
        """Return the first verdicts."""
        return np.frombuffer(self.view, "<u4", packets, VERDICTS_AT).copy()

    def capture(self, size: int) -> bytes:
        """Return the first bytes of what became of the capture."""
        return bytes(self.view[:size])


class PacketWork:
    """Running a packet program over a capture; see `runvisor.actors.ebpf.work.Work`.

    After a run that answers ``done``, `at` and `packets` say how far it came: a capture
    is done when `at` is its end, and else the packet there is not one that may be run.

    Args:
        artifact: The checked program.
        inputs: Its input.
        state: Its first state, empty for zeros.
        most_changed: Bytes of changed packets to collect at most; see `changed_bytes`.
    """

    def __init__(self, artifact: PacketArtifact, inputs: PacketInputs, state: bytes, most_changed: int) -> None:
        self.artifact = artifact
        self.room = _ROOM
        self.shared_maps = 1
        self.instructions = len(inputs.capture.data) // _BYTES_A_PACKET * artifact.cost
        self.needed_bytes = WINDOW_BYTES + artifact.state_bytes + CURSOR.size
        self.at = 0
        self.packets = 0
        self.changed: list[tuple[int, bytes]] = []
        """Packets by number that came out different."""
        self.changed_bytes = 0
        """Their bytes; above ``most_changed`` the rest was left out."""
        self._inputs = inputs
        self._state = state
        self._most_changed = most_changed
        self._verdicts: list[Verdicts] = []

    @property
    def verdicts(self) -> Verdicts:
        """What the program returned, by packet."""
        return np.concatenate(self._verdicts) if self._verdicts else np.zeros(0, np.uint32)

    def load_message(self) -> dict[str, Any]:
        """See `Work`."""
        return {
            "kind": self.artifact.kind,
            "instructions": self.artifact.instructions,
            "cost": self.artifact.cost,
            "state_bytes": self.artifact.state_bytes,
        }

    def loaded(self, number: int, fds: Sequence[int]) -> LoadedWindow:
        """See `Work`."""
        return LoadedWindow(number, self.artifact, fds[0])

    def run(self, loaded: LoadedProgram, ask: Ask) -> Message:
        """See `Work`."""
        assert isinstance(loaded, LoadedWindow)
        capture = self._inputs.capture
        data = capture.data
        cpu_s = 0.0
        loaded.clear(len(data))
        while True:
            part = data[self.at : self.at + CAPTURE_BYTES]
            loaded.write(part)
            answer = ask(
                {
                    "op": "run",
                    "bytes": len(part),
                    "swapped": capture.byte_order == ">",
                    "unit": 1 if capture.has_nanoseconds else 1000,
                    "back": self._inputs.changed,
                    "state": self._state if not self.at else None,
                    "last": self.at + len(part) == len(data),
                }
            )
            if checked_run(answer)["op"] != "done":
                return answer
            consumed, packets = _progress(answer, len(part))
            cpu_s += answer["cpu_s"]
            self._verdicts.append(loaded.verdicts(packets))
            if self._inputs.changed:
                self._collect(loaded.capture(consumed))
            self.at += consumed
            self.packets += packets
            if self.at == len(data):
                return {**checked_state(answer, self.artifact.state_bytes), "cpu_s": cpu_s}
            if not consumed:
                self._check_next()
                return {**answer, "cpu_s": cpu_s}

    def _check_next(self) -> None:
        """Check that the next packet is not one that may be run; see `PacketExecution.value`.

        Raises:
            ProtocolError: It is.
        """
        try:
            check_packet(self._inputs.capture, self.packets, self.at, *PACKET_BYTES[self.artifact.kind])
        except InvalidTask:
            return
        raise ProtocolError(f"it did not run packet {self.packets}", "ebpf")

    def _collect(self, after: bytes) -> None:
        """Add the packets that a window changed."""
        before = bytes(self._inputs.capture.data[self.at : self.at + len(after)])
        if before == after:
            return
        capture = self._inputs.capture
        part = Capture(memoryview(before), capture.byte_order, capture.has_nanoseconds, capture.name)
        for number, (begin, end) in enumerate(part.offsets(), self.packets):
            if before[begin:end] != after[begin:end]:
                self.changed_bytes += end - begin
                if self.changed_bytes > self._most_changed:
                    return
                self.changed.append((number, after[begin:end]))


def _progress(answer: Message, size: int) -> tuple[int, int]:
    """Return how far a window was done, as the executor says it.

    Raises:
        ProtocolError: It cannot be so.
    """
    consumed, packets = answer.get("consumed"), answer.get("packets")
    if not isinstance(consumed, int) or not isinstance(packets, int):
        raise ProtocolError("progress is not a number", "ebpf")
    if not 0 <= packets * PACKET_HEADER_BYTES <= consumed <= size or (packets == 0) != (consumed == 0):
        raise ProtocolError(f"{packets} packets in {consumed} bytes of {size}", "ebpf")
    return consumed, packets
