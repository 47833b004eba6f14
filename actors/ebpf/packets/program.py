"""Inside the jail: a loaded packet program and its three maps."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.ebpf import bpf
from runvisor.actors.ebpf.packets.agreement import CURSOR, CURSOR_MAP, STATE_MAP, WINDOW_BYTES, WINDOW_MAP
from runvisor.actors.ebpf.relocation import relocate

_RUN_BUDGET: Final = 4_000_000
"""Instructions in one uninterruptible run: some 2 ms."""
_OWN_COST: Final = 300
"""What making the frame and copying the packet take, in instructions of about half a nanosecond."""
_FRAME_BYTES: Final = 64
"""Of the packet that a run is given: any that every type of program takes."""
_TYPES: Final = {"filter": bpf.ProgramType.SOCKET_FILTER, "xdp": bpf.ProgramType.XDP}


class PacketProgram:
    """One loaded packet program.

    Args:
        request: The host's ``load`` message.
        kernel_functions: BTF ids by stand-in number, where the loop calls them.

    Raises:
        bpf.VerifierRefusal: The verifier refuses it.
        OSError: The kernel has no memory for it, or refuses bpf(2).
    """

    def __init__(self, request: Message, kernel_functions: Mapping[int, int]) -> None:
        self._chunk = max(1, _RUN_BUDGET // (request["cost"] + _OWN_COST))
        self._has_state = request["state_bytes"] > 0
        state_bytes = max(1, request["state_bytes"])
        with contextlib.ExitStack() as undo:
            window = bpf.create_array(WINDOW_BYTES, mappable=True, name=b"rv_window")
            undo.callback(os.close, window)
            self.shared = [window]
            """Descriptors of the maps that the pool's end maps too."""
            state = bpf.create_array(state_bytes, name=b"rv_state")
            undo.callback(os.close, state)
            cursor = bpf.create_array(CURSOR.size, name=b"rv_cursor")
            undo.callback(os.close, cursor)
            maps = {WINDOW_MAP: window, STATE_MAP: state, CURSOR_MAP: cursor}
            code = relocate(request["instructions"], maps, kernel_functions)
            program = bpf.load_program(code, _TYPES[request["kind"]])
            undo.callback(os.close, program)
            self._run = bpf.BareRun(program, _FRAME_BYTES)
            self._state = bpf.Element(state, state_bytes)
            self._cursor = bpf.Element(cursor, CURSOR.size)
            self._cleanup = undo.pop_all()

    def execute(self, request: Message) -> Message:
        """Run over the packets that lie in the window; answer the host's ``run`` message."""
        if request["state"] is not None:  # None: a further part of the same execution
            self._state.write(request["state"])
        is_done, at, packets = self._run_over(request, request["deadline"])
        if not is_done:
            return {"op": "late"}
        state = self._state.read() if request["last"] and self._has_state else b""
        return {"op": "done", "consumed": at, "packets": packets, "state": state}

    def close(self) -> None:
        """Unload it."""
        self._cleanup.close()

    def _run_over(self, request: Message, deadline: float) -> tuple[bool, int, int]:
        """Return whether all was done that can be, where the next packet begins, and how many were done."""
        at = packets = 0
        headers = request["swapped"], request["unit"], _FRAME_BYTES, request["back"]
        while True:
            self._cursor.write(CURSOR.pack(at, self._chunk, request["bytes"], packets, *headers))
            self._run()
            at, left, _, packets, *_ = CURSOR.unpack(self._cursor.read())
            if left:
                return True, at, packets
            if time.monotonic() >= deadline:
                return False, at, packets
