"""A guest module for tests of conversations: speaks the guest's side of the protocol, tasks and sessions, in Python.

Code is executed; its value is that of the name ``value``. It can misbehave, as ``channel`` is within its reach.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
from typing import Any

from runvisor.actors.channel.frames import MAX_FDS, FrameSocket
from runvisor.actors.jail import limits
from runvisor.policies.values import pack, unpack

NAME = "partner"


def preload(options: dict[str, Any]) -> None:
    """Nothing to preload."""


def prepare(options: dict[str, Any]) -> None:
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def serve(channel: FrameSocket, prepared: None) -> None:
    first, fds = channel.receive_with_fds(MAX_FDS)
    if first is None:
        return
    world: dict[str, Any] = {"channel": channel, "os": os, "first": first}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel.send({"op": "started"})
    limits.apply_cpu_limit(first["cpu_s"])
    if first.get("mode") != "session":
        sizes = [size for _, size in first.get("shared", ())]
        maps = [mmap.mmap(fd, size, mmap.MAP_PRIVATE, mmap.PROT_READ) for fd, size in zip(fds, sizes, strict=True)]
        channel.send(answer(first, world, maps))
        return
    while (cell := channel.receive()) is not None:
        channel.send(answer(cell, world, []))


def answer(cell: dict[str, Any], world: dict[str, Any], buffers: list[Any]) -> dict[str, Any]:
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        world["inputs"] = unpack(cell["inputs"], buffers=buffers)
        world["value"] = None
        exec(cell["code"], world)
        reply = {"op": "value", "value": pack(world["value"])}
        if "artifacts" in world:
            reply["artifacts"] = world.pop("artifacts")
    except KeyboardInterrupt:
        reply = {"op": "error", "type": "GuestInterrupted", "what": "KeyboardInterrupt"}
    except BaseException as error:
        reply = {"op": "error", "type": "GuestException", "what": f"{type(error).__name__}: {error}"}
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
    return reply
