"""Waiting: for clocks; files and streams are always ready."""

from __future__ import annotations

import os
from typing import Final

from runvisor.actors.wasm.fastpath import Memory
from runvisor.actors.wasm.wasi.abi import ABSTIME, EVENT, SUBSCRIPTION, U32, Ended, Errno, Failure, Right
from runvisor.actors.wasm.wasi.descriptors import Directory, Stream
from runvisor.actors.wasm.wasi.streams import STDIN
from runvisor.actors.wasm.wasi.world import World

_MAX_SUBSCRIPTIONS: Final = 1024
_CLOCK, _FD_READ, _FD_WRITE = 0, 1, 2


def poll_oneoff(world: World, memory: Memory, wanted: int, events: int, count: int, out: int) -> int:
    """Wait until one of several things has happened. A wait ends at the run's deadline at the latest."""
    if not 1 <= count <= _MAX_SUBSCRIPTIONS:
        return Errno.INVAL
    ready: list[bytes] = []
    alarms: list[tuple[int, int]] = []
    for user, kind, which, timeout, _precision, flags in SUBSCRIPTION.iter_unpack(
        memory.read(wanted, count * SUBSCRIPTION.size)
    ):
        if kind == _CLOCK:
            try:
                now = world.ambient.now_ns(which)
            except KeyError:
                ready.append(EVENT.pack(user, Errno.INVAL, kind, 0, 0))
                continue
            alarms.append((max(0, timeout - now) if flags & ABSTIME else timeout, user))
        elif kind in (_FD_READ, _FD_WRITE):
            ready.append(_descriptor_event(world, user, kind, which))
        else:
            return Errno.INVAL
    if not ready:
        first = min(wait for wait, _ in alarms)
        _wait(world, first)
        ready = [EVENT.pack(user, Errno.SUCCESS, _CLOCK, 0, 0) for wait, user in alarms if wait <= first]
    memory.write(events, b"".join(ready))
    memory.write(out, U32.pack(len(ready)))
    return Errno.SUCCESS


def _wait(world: World, nanoseconds: int) -> None:
    if not world.ambient.may_sleep():
        return
    left_s = world.deadlines.left_s(world.token)
    world.sleep(min(nanoseconds / 1e9, left_s))
    if nanoseconds / 1e9 >= left_s:
        raise Ended
    world.check_time()


def _descriptor_event(world: World, user: int, kind: int, number: int) -> bytes:
    try:
        return EVENT.pack(user, Errno.SUCCESS, kind, _ready_bytes(world, kind, number), 0)
    except Failure as failure:
        return EVENT.pack(user, failure.errno, kind, 0, 0)


def _ready_bytes(world: World, kind: int, number: int) -> int:
    """Return how many bytes can be read or written at once."""
    found = world.table.get(number)
    if isinstance(found, Directory):
        return 0
    found.require(Right.POLL_FD_READWRITE)
    if not isinstance(found, Stream):
        return max(0, os.fstat(found.fd).st_size - os.lseek(found.fd, 0, os.SEEK_CUR)) if kind == _FD_READ else 1
    if (kind == _FD_READ) != (found.number == STDIN):
        raise Failure(Errno.BADF)
    return max(1, len(world.stdin) - world.stdin_at)
