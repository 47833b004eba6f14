"""Inside the jail: run one task, or the cells of one session, and send what came of it home.

Everything here shares a process with hostile code and is trusted by nobody.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import linecache
import os
import sys
from dataclasses import dataclass
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail import limits
from runvisor.actors.jail.inmate import await_end
from runvisor.actors.python import arenas, figures, plotly, screen, session, shared, streams, tables, tracebacks
from runvisor.actors.python.interpreter import Interpreter
from runvisor.actors.python.numeric import accelerate, engine
from runvisor.actors.python.numeric.accelerate import Accelerator
from runvisor.policies.values import pack

_REHEARSAL: Final = {
    "code": "import math\ndef double(x):\n    return x * 2\ntotal = [double(i) for i in range(3)]\ntotal",
    "label": "",
    "inputs": pack({"x": [1.5, "text"]}),
    "env": {},
    "cpu_s": 1e9,
    "memory_bytes": 1 << 46,
}
"""A task like any other, but for limits that leave all as it is."""

_STACK_BYTES: Final = 64 << 20
"""About what the objects of the scientific stack take."""
_GROWTH_BYTES: Final = 4 << 20

_profiles: dict[str, str] = {}
_is_zygote = True
_mapped_bytes = 0


def preload(options: dict[str, Any]) -> None:
    """Import the profile's packages and what they load lazily, in the zygote.

    Args:
        options: ``modules`` to import; ``required`` if a missing one is an
            error; ``site``, folders to import from before all others; and
            ``elsewhere``, the profiles that have other packages.
    """
    global _mapped_bytes
    figures.choose_backend()
    plotly.show_as_artifacts()
    streams.buffer_lines()
    sys.path[:0] = options.get("site", ())
    _profiles.update(options.get("elsewhere", {}))
    modules = options.get("modules", ())
    with arenas.contiguous_objects(_STACK_BYTES if modules else 0):
        for name in ("asyncio", "encodings.idna", *modules):
            # Without it, the guest sees its ordinary ImportError.
            with contextlib.nullcontext() if options.get("required") else contextlib.suppress(ImportError):
                importlib.import_module(name)
        if "matplotlib.pyplot" in sys.modules:
            figures.warm()
        if "pandas" in sys.modules:
            tables.warm()
    if "numpy.random" in sys.modules:
        os.register_at_fork(before=_reseed)
    builtins.display = screen.display  # type: ignore[attr-defined]
    tracebacks.note_libraries()
    accelerate.preload()
    _rehearse()
    _mapped_bytes = limits.mapped_bytes()


def _reseed() -> None:
    """Give the next child numpy randomness of its own; here, because there it would copy a hundred pages."""
    if _is_zygote:
        sys.modules["numpy.random"].seed()


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a waiting child has ready."""

    interpreter: Interpreter
    mapped_bytes: int
    """The size of its address space."""


def prepare(options: dict[str, Any]) -> Prepared:
    """Make a child ready: touch its share of copied pages. The ``random`` module seeds itself after a fork."""
    global _is_zygote
    del options
    _is_zygote = False
    _rehearse()
    return Prepared(Interpreter(_profiles), _mapped_bytes + _GROWTH_BYTES)


def _rehearse() -> None:
    """Walk the path of a task once: after a fork, the first touch of each page costs a copy."""
    ours, theirs = FrameSocket.pair()
    with ours, theirs:
        ours.send(_REHEARSAL)
        _serve(theirs, Prepared(Interpreter(_profiles), 0))
        limits.ADDRESS_RESERVE.keep()
        ours.receive()
        ours.receive()
    sys.modules.pop("__main__", None)
    linecache.clearcache()


def serve(channel: FrameSocket, prepared: Prepared) -> None:
    """Take one task or the start of a session, serve it, and wait for the end."""
    _serve(channel, prepared)
    await_end(channel)


def _serve(channel: FrameSocket, prepared: Prepared) -> None:
    first, fds = channel.receive_with_fds()
    if first is None:
        return
    is_session = first.get("mode") == "session"
    if is_session:
        session.ignore_interrupts()
    channel.send({"op": "started"})
    buffers = shared.mapped(first.get("shared"), fds)
    limits.apply_cpu_limit(first["cpu_s"])
    shared_bytes = shared.size_of(first.get("shared"))
    limits.apply_address_space_limit(prepared.mapped_bytes + first["memory_bytes"] + shared_bytes)
    os.environ.update(first["env"])
    interpreter = prepared.interpreter
    if first.get("variant") == "jit":
        interpreter = Interpreter(_profiles, Accelerator(engine.process_engine()))
    if is_session:
        session.serve(channel, interpreter)
        return
    reply = interpreter.run_task(first["code"], first["label"], first["inputs"], buffers)
    limits.ADDRESS_RESERVE.use()
    streams.flush()
    channel.send(reply)
