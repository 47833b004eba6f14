"""Inside the jail: load the programs of one observation, attach them, and read out the table.

The process holds CAP_BPF and CAP_PERFMON and serves one observation. Programs, maps
and attachments are descriptors of this process and of no other: they are gone with
it, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.ebpf import attach, bpf
from runvisor.actors.ebpf.maps import Map, MapKind
from runvisor.actors.ebpf.observe.agreement import (
    CONTROL,
    CONTROL_MAP,
    MARK,
    MAX_THREADS,
    MESSAGE_BYTES,
    PENDING_MAP,
    TABLE_MAP,
    TARGETS_MAP,
    THREAD,
)
from runvisor.actors.ebpf.relocation import relocate

_LOOK_S: Final = 0.05
"""How often it looks whether anything of the target is left."""
_LOG_TAIL: Final = 4000
_ZERO: Final = bytes(4)


def preload(options: dict[str, Any]) -> None:
    """Nothing heavy to import."""
    del options


def prepare(options: dict[str, Any]) -> int:
    """Return for how many cores the kernel keeps values."""
    return int(options["cores"])


def serve(channel: FrameSocket, cores: int) -> None:
    """Serve one observation, and let the process end."""
    request, events = channel.receive_with_fds()
    if request is None:
        return
    with contextlib.ExitStack() as stack:
        try:
            maps = _make_maps(request, cores, stack)
            attached = stack.enter_context(contextlib.ExitStack())
            _attach(request, events, maps, stack, attached)
        except bpf.VerifierRefusal as refusal:
            channel.send({"op": "refused", "log": refusal.log[-_LOG_TAIL:]})
            return
        except OSError as error:
            channel.send({"op": "no memory" if error.errno == errno.ENOMEM else "failed", "what": str(error)})
            return
        channel.send({"op": "attached"})
        ended = _wait(channel, maps, request["follow"])
        if not ended:
            os._exit(0)  # a kill is on its way, and does not interrupt the end of a process that is ending already
        attached.close()
        _send_table(channel, maps, ended)


def _make_maps(request: Message, cores: int, stack: contextlib.ExitStack) -> dict[int, Map]:
    shapes = {
        TARGETS_MAP: (MapKind.HASH, THREAD.size, len(MARK), MAX_THREADS),
        CONTROL_MAP: (MapKind.ARRAY, 4, CONTROL.size, 1),
        TABLE_MAP: (MapKind.PER_CORE_HASH, request["key_bytes"], request["value_bytes"], request["entries"]),
        PENDING_MAP: (MapKind.HASH, THREAD.size, request["pending_bytes"], MAX_THREADS),
    }
    return {
        number: stack.enter_context(Map(kind, key, value, entries, cores=cores, name=b"rv_observe"))
        for number, (kind, key, value, entries) in shapes.items()
    }


def _attach(
    request: Message,
    events: list[int],
    maps: dict[int, Map],
    stack: contextlib.ExitStack,
    attached: contextlib.ExitStack,
) -> None:
    """Load every program before the first is attached, so that a refusal leaves nothing running.

    A program whose event has no name is attached to the next of those that the host opened. Its
    attachment then holds that event alone, so that its end is over before the host has the table and
    kills this process: a kill amid a close(2) has the kernel leave breakpoints of uprobes in other
    processes ("failed to unregister, leaking uprobe").
    """
    fds = {number: each.fd for number, each in maps.items()}
    loaded: list[tuple[int, str]] = []
    for kind, event, code in request["programs"]:
        program = bpf.load_program(relocate(code, fds), bpf.ProgramType(kind), name=b"rv_observe")
        stack.callback(os.close, program)
        loaded.append((program, event))
    opened = iter(events)
    for program, event in loaded:
        link = attach.attach_raw_tracepoint(program, event) if event else attach.attach_event(program, next(opened))
        attached.callback(os.close, link)
    for event_fd in events:
        os.close(event_fd)


def _wait(channel: FrameSocket, maps: dict[int, Map], follow: bool) -> str:
    """Take orders until the time is over; return why it ended, empty if the host is gone."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    targets, until_ns = maps[TARGETS_MAP], 0
    while True:
        left_s = (until_ns - time.monotonic_ns()) / 1e9 if until_ns else _LOOK_S
        if left_s <= 0:
            return "time"
        if not poll.poll(min(left_s, _LOOK_S) * 1000 + 1):
            if until_ns and next(iter(targets.items()), None) is None:
                return "target"
            continue
        order = channel.receive()
        if order is None:
            return ""
        if order["op"] == "stop":
            return "stopped"
        new = 0
        if order["op"] == "begin":
            until_ns = order["until_ns"]
        else:
            for thread in order["gone"]:
                targets.delete(THREAD.pack(thread))
            new = sum(targets.add(THREAD.pack(thread), MARK) for thread in order["threads"])
        # Threads are followed from now on, but until it begins the time is over.
        maps[CONTROL_MAP].update(_ZERO, CONTROL.pack(until_ns, follow, 0))
        channel.send({"op": "following", "new": new})


def _send_table(channel: FrameSocket, maps: dict[int, Map], ended: str) -> None:
    table = maps[TABLE_MAP]
    keys, values = bytearray(), bytearray()
    for key, value in table.items():
        keys += key
        for part in table.split(value):
            values += part
        if len(keys) + len(values) > MESSAGE_BYTES:
            channel.send({"op": "entries", "keys": bytes(keys), "values": bytes(values)})
            keys.clear()
            values.clear()
    channel.send({"op": "entries", "keys": bytes(keys), "values": bytes(values)})
    control = maps[CONTROL_MAP].lookup(_ZERO) or bytes(CONTROL.size)
    channel.send({"op": "done", "ended": ended, "lost": CONTROL.unpack(control)[2]})
