"""Inside the jail: one isolate, for one task or for the cells of one session.

The isolate's thread runs the code; this process's main thread waits for what
comes of it: a value, a timer that is due, a step of a request, an interrupt.
Everything here shares a process with hostile code and is trusted by nobody.
"""

from __future__ import annotations

import functools
import importlib.resources
import os
import signal
import threading
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail import limits
from runvisor.actors.v8.bridge import Bridge
from runvisor.actors.v8.evaluation import Evaluation, memory_exhausted
from runvisor.actors.v8.exhaustion import watch_private_memory
from runvisor.actors.v8.isolate import load_library
from runvisor.actors.v8.shared import received
from runvisor.policies.values import pack

_MAX_HEAP_MIB: Final = 4096
_DRIVER: Final = ("bridge", "timers", "console", "values", "tasks", "entry")
_PARTS: Final = {"parts": ("inspect", "text", "events", "data", "fetch"), "bundle": ("url", "streams", "program")}

_driver = ""
_parts: dict[str, str] = {}


def preload(options: dict[str, Any]) -> None:
    """Load V8, but start no isolate: a fork after the first isolate hangs."""
    del options
    global _driver
    load_library([f"--max-heap-size={_MAX_HEAP_MIB}"])
    folder = importlib.resources.files("runvisor.actors.v8")
    body = "".join(folder.joinpath("driver", f"{name}.js").read_text() for name in _DRIVER)
    _driver = f"((host, scratch, token) => {{\n{body}}})"
    for place, names in _PARTS.items():
        for name in names:
            _parts[name] = folder.joinpath(place, f"{name}.js").read_text()


def prepare(options: dict[str, Any]) -> Bridge:
    """Start the isolate: its threads must exist before seccomp binds them all."""
    del options
    bridge = Bridge(_driver, _parts)
    # Walk the path of a task once: after a fork, the first touch of each page costs a copy.
    Evaluation(bridge, {"code": "1", "inputs": pack(None)}).answer()
    bridge.isolate.evaluate("delete globalThis.inputs")
    return bridge


def serve(channel: FrameSocket, prepared: Bridge) -> None:
    """Take one task, or the cells of one session, and answer; the process ends with it."""
    first, fds = channel.receive_with_fds()
    if first is None:
        return
    is_session = first.get("mode") == "session"
    if is_session:  # process 1 of a namespace gets no signal that it does not handle
        signal.signal(signal.SIGINT, lambda *_: prepared.interrupt())
    channel.send({"op": "started"})
    limits.apply_cpu_limit(first["cpu_s"])
    os.environ.update(first.get("env", {}))
    answering = threading.Lock()
    watch_private_memory(functools.partial(_answer_exhausted, channel, answering))
    prepared.isolate.limit_heap(first["memory_bytes"])
    prepared.begin()
    if is_session:
        _serve_cells(channel, prepared, answering)
    else:
        answer = Evaluation(prepared, first, received(first.get("shared"), fds)).answer()
        with answering:
            channel.send(answer)
            os._exit(0)
    os._exit(0)  # closing an isolate deadlocks when its task still runs


def _answer_exhausted(channel: FrameSocket, answering: threading.Lock) -> None:
    with answering:
        channel.send(memory_exhausted())
        os._exit(0)


def _serve_cells(channel: FrameSocket, bridge: Bridge, answering: threading.Lock) -> None:
    while True:
        Evaluation(bridge, {}, session=True).rest(channel)
        cell, fds = channel.receive_with_fds()
        if cell is None:
            return
        buffers = received(cell.get("shared"), fds)
        answer = Evaluation(bridge, cell, buffers, session=True).answer()
        with answering:
            channel.send(answer)
        for buffer in buffers:
            os.close(buffer.fd)
