"""A session: cells that share a namespace, one after another, until the host hangs up.

An interrupt is SIGINT. It ends the cell that runs, as `KeyboardInterrupt`,
and does nothing between cells.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
from types import FrameType
from typing import Any

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail import limits
from runvisor.actors.python import shared, streams
from runvisor.actors.python.interpreter import Interpreter, Reply

_set_handler = _signal.signal
"""What `signal.signal` wraps in conversions that cost more than all else here; and no cell can replace it."""
_running: Interpreter | None = None
"""What an interrupt goes to: set only while a cell runs."""


def ignore_interrupts() -> None:
    """Have a handler before the first cell: process 1 of a namespace gets no signal that it does not handle."""
    signal.signal(signal.SIGINT, _on_interrupt)


def serve(channel: FrameSocket, interpreter: Interpreter) -> None:
    """Answer each cell with one reply, until the stream ends."""
    number = 0
    while True:
        cell, fds = channel.receive_with_fds()
        if cell is None:
            return
        number += 1
        reply = _run(interpreter, number, cell, shared.mapped(cell.get("shared"), fds))
        limits.ADDRESS_RESERVE.use()
        channel.send(reply)
        limits.ADDRESS_RESERVE.keep()


def _run(interpreter: Interpreter, number: int, cell: dict[str, Any], buffers: list[memoryview]) -> Reply:
    global _running
    try:
        _set_handler(signal.SIGINT, _on_interrupt)  # the cell before may have put its own there
        _running = interpreter
        reply = interpreter.run_cell(number, cell["code"], cell["inputs"], buffers)
        streams.flush()
        _running = None
    except KeyboardInterrupt:  # while its answer was made
        _running = None
        reply = {"op": "error", "type": "GuestInterrupted", "what": "the cell was interrupted at its end"}
        streams.flush()
    return reply


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    del number
    if _running is not None:
        _running.interrupt(frame)
