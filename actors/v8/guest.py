"""Inside the jail: one isolate, for one task or for the cells of one session.

The isolate's thread takes the frame, runs the code and answers; this process's
main thread sleeps, unless there is more to see to than a value.
Everything here shares a process with hostile code and is trusted by nobody.
"""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import os
import signal
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail.inmate import await_end
from runvisor.actors.v8.attendant import Attendant
from runvisor.actors.v8.bridge import Bridge
from runvisor.actors.v8.exhaustion import watch_private_memory
from runvisor.actors.v8.isolate import load_library
from runvisor.policies.permissions import MiB
from runvisor.policies.values import pack

_MAX_HEAP_MIB: Final = 4096
_MAGLEV_AFTER_CALLS: Final = 4000
"""Ten times V8's own number: there, another thread compiles meanwhile; here, the task waits half a millisecond for
the compiler's first function."""
_NO_CPU_LIMIT_S: Final = 1 << 30
_SMALL: Final = pack({"x": [1.5, "text"]})
_LARGE: Final = pack(json.dumps([{"id": n, "name": f"row {n}", "tags": ["a", "b"]} for n in range(500)]))
_WARM: Final = (
    ("1", _SMALL),
    ("({ y: inputs.x })", _SMALL),
    ("JSON.stringify(inputs)", _SMALL),
    ("JSON.stringify(JSON.parse(inputs).filter((row) => row.id).map((row) => ({ ...row, n: row.id })))", _LARGE),
)
"""Programs and inputs that reach what most tasks need; the last touches what memory and code much data takes."""
_DRIVER: Final = ("bridge", "timers", "console", "values", "tasks", "entry")
"""The image of QuickJS takes some of these too: see `runvisor.actors.wasm.images.quickjs`."""
_PARTS: Final = {"parts": ("inspect", "text", "events", "data", "fetch"), "bundle": ("url", "streams", "program")}

_driver = ""
_parts: dict[str, str] = {}


def preload(options: dict[str, Any]) -> None:
    """Load V8, but start no isolate: a fork after the first isolate hangs."""
    del options
    global _driver
    load_library([f"--max-heap-size={_MAX_HEAP_MIB}", f"--invocation-count-for-maglev={_MAGLEV_AFTER_CALLS}"])
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
    _rehearse(bridge)
    return bridge


def _rehearse(bridge: Bridge) -> None:
    """Walk the path of a task, from its frame to its answer: the first touch of each page costs a fault or a copy."""
    for code, inputs in _WARM:
        ours, theirs = FrameSocket.pair()
        with ours, theirs:
            limits_of_none = {"cpu_s": _NO_CPU_LIMIT_S, "memory_bytes": _MAX_HEAP_MIB * MiB}
            ours.send({"code": code, "inputs": inputs, "env": {}, **limits_of_none})
            Attendant(theirs, bridge, lambda: None, lambda _: None).serve()
            ours.receive()
            ours.receive()
    bridge.isolate.evaluate("delete globalThis.inputs")


def serve(channel: FrameSocket, prepared: Bridge) -> None:
    """Take one task, or the cells of one session, and answer; the process ends with it."""
    # Process 1 of a namespace gets no signal that it does not handle.
    signal.signal(signal.SIGINT, lambda *_: prepared.interrupt())
    Attendant(channel, prepared, lambda: _leave(channel), watch_private_memory).serve()
    _leave(channel)


def _leave(channel: FrameSocket) -> None:
    with contextlib.suppress(Exception):
        await_end(channel)
    os._exit(0)  # closing an isolate deadlocks when its task still runs
