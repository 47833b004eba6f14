"""WASI preview 1 with nothing granted: arguments, environment, clocks, randomness and the three standard streams.

Our own, not Wasmtime's, for four reasons: output is capped where it is
written and a sleep ends at the deadline (Wasmtime's blocks in threads that
epochs do not reach); the guest's writes are a function call instead of a hop to
another thread (7 us against over 100); and a world in which no code for files
and sockets exists cannot leak one. Every function of preview 1 is there, so that
modules link; what needs a grant answers as for a descriptor that is not open.

Source: https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.fastpath import VALUE_BYTES, Memory, OutOfBounds
from runvisor.actors.wasm.hostcalls import caller_memory, define_function

if TYPE_CHECKING:
    import wasmtime

MODULE: Final = "wasi_snapshot_preview1"

_OK: Final = 0
_BADF: Final = 8
_FAULT: Final = 21
_INVAL: Final = 28
_NOTSUP: Final = 58
_SPIPE: Final = 70

_STDIN: Final = 0
_CAN_READ: Final = (1 << 1) | (1 << 27)
_CAN_WRITE: Final = (1 << 6) | (1 << 27)
_UNKNOWN_FILE: Final = 0
"""The streams are no terminals: C libraries then buffer their output."""

_IOVEC: Final = struct.Struct("<II")
_FDSTAT: Final = struct.Struct("<BxHxxxxQQ")
_SUBSCRIPTION: Final = struct.Struct("<QB7xI4xQQH6x")
_EVENT: Final = struct.Struct("<QHB5xQH6x")
_MAX_IOVECS: Final = 1024
_MAX_SUBSCRIPTIONS: Final = 1024
_RANDOM_CHUNK: Final = 1 << 16
_CLOCKS: Final = {
    0: (time.time_ns, time.CLOCK_REALTIME),
    1: (time.monotonic_ns, time.CLOCK_MONOTONIC),
    2: (time.thread_time_ns, time.CLOCK_THREAD_CPUTIME_ID),  # all CPU time of a run is that of its thread
    3: (time.thread_time_ns, time.CLOCK_THREAD_CPUTIME_ID),
}


class _Ended(Exception):
    """The run is over: it left, went over a cap, or slept past its deadline."""


@dataclass(slots=True)
class World:
    """All that one run sees through WASI, and what came of it."""

    token: int
    """The run's token in the table of deadlines."""
    output_bytes: int
    """Cap of stdout and of stderr, each."""
    stdin: bytes = b""
    arguments: tuple[bytes, ...] = (b"main",)
    environment: tuple[bytes, ...] = ()
    """``NAME=value`` each."""
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    exit_code: int | None = None
    """Set by ``proc_exit``."""
    overflowed: str = ""
    """``stdout`` or ``stderr``, if it went over the cap."""
    stdin_at: int = 0
    closed: set[int] = field(default_factory=set)

    def is_open(self, fd: int) -> bool:
        """Whether it is a standard stream that the guest has not closed."""
        return 0 <= fd <= 2 and fd not in self.closed


class Wasi:
    """The host side of the imports, shared by all runs of an engine process.

    A run is known by the thread it runs in: `World.enter` before it, `leave` after.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._worlds: dict[int, World] = {}

    def enter(self, world: World) -> None:
        """Let the calling thread's run see this world."""
        self._worlds[threading.get_ident()] = world

    def leave(self) -> None:
        """End what `enter` began."""
        self._worlds.pop(threading.get_ident(), None)

    def define(self, linker: wasmtime.Linker) -> None:
        """Define every function of preview 1 in a linker."""
        import wasmtime

        kinds = {"i": wasmtime.ValType.i32, "l": wasmtime.ValType.i64}
        for name, shape in FUNCTIONS.items():
            returns = [] if name == "proc_exit" else [wasmtime.ValType.i32()]
            kind = wasmtime.FuncType([kinds[letter]() for letter in shape], returns)
            define_function(linker, MODULE, name, kind, self._bind(name, shape))

    def _bind(self, name: str, shape: str) -> Callable[[int, bytes], int | None]:
        with_memory, without_memory = _WITH_MEMORY.get(name), _WITHOUT_MEMORY.get(name)
        unpack = struct.Struct("<" + "".join("I12x" if letter == "i" else "Q8x" for letter in shape)).unpack
        assert VALUE_BYTES == 16

        def call(caller: int, raw: bytes) -> int | None:
            try:
                if with_memory is not None:
                    return with_memory(self, self._world(), caller_memory(caller), *unpack(raw[: 16 * len(shape)]))
                if without_memory is not None:
                    return without_memory(self, self._world(), *unpack(raw[: 16 * len(shape)]))
                return _BADF
            except OutOfBounds:
                return _FAULT
            except _Ended:
                return None

        return call

    def _world(self) -> World:
        return self._worlds[threading.get_ident()]

    def _args_sizes_get(self, world: World, memory: Memory, count: int, size: int) -> int:
        return _put_sizes(memory, world.arguments, count, size)

    def _args_get(self, world: World, memory: Memory, pointers: int, texts: int) -> int:
        return _put_texts(memory, world.arguments, pointers, texts)

    def _environ_sizes_get(self, world: World, memory: Memory, count: int, size: int) -> int:
        return _put_sizes(memory, world.environment, count, size)

    def _environ_get(self, world: World, memory: Memory, pointers: int, texts: int) -> int:
        return _put_texts(memory, world.environment, pointers, texts)

    def _clock_res_get(self, _: World, memory: Memory, clock: int, out: int) -> int:
        if clock not in _CLOCKS:
            return _INVAL
        memory.write(out, struct.pack("<Q", max(1, int(time.clock_getres(_CLOCKS[clock][1]) * 1e9))))
        return _OK

    def _clock_time_get(self, _: World, memory: Memory, clock: int, precision: int, out: int) -> int:
        del precision
        if clock not in _CLOCKS:
            return _INVAL
        memory.write(out, struct.pack("<Q", _CLOCKS[clock][0]()))
        return _OK

    def _random_get(self, world: World, memory: Memory, out: int, size: int) -> int:
        for at in range(0, size, _RANDOM_CHUNK):
            memory.write(out + at, os.urandom(min(_RANDOM_CHUNK, size - at)))
            if not self._deadlines.may_go_on(world.token):
                raise _Ended
        return _OK

    def _sched_yield(self, world: World) -> int:
        del world
        os.sched_yield()
        return _OK

    def _proc_exit(self, world: World, code: int) -> int:
        world.exit_code = code
        raise _Ended

    def _fd_close(self, world: World, fd: int) -> int:
        if not world.is_open(fd):
            return _BADF
        world.closed.add(fd)
        return _OK

    def _fd_fdstat_get(self, world: World, memory: Memory, fd: int, out: int) -> int:
        if not world.is_open(fd):
            return _BADF
        memory.write(out, _FDSTAT.pack(_UNKNOWN_FILE, 0, _CAN_READ if fd == _STDIN else _CAN_WRITE, 0))
        return _OK

    def _fd_filestat_get(self, world: World, memory: Memory, fd: int, out: int) -> int:
        if not world.is_open(fd):
            return _BADF
        memory.write(out, bytes(64))  # device, inode, kind, links, size and three times: all unknown
        return _OK

    def _fd_seek(self, world: World, fd: int, offset: int, whence: int, out: int) -> int:
        del offset, whence, out
        return _SPIPE if world.is_open(fd) else _BADF

    def _fd_tell(self, world: World, fd: int, out: int) -> int:
        del out
        return _SPIPE if world.is_open(fd) else _BADF

    def _fd_sync(self, world: World, fd: int) -> int:
        return _INVAL if world.is_open(fd) else _BADF

    def _fd_fdstat_set_flags(self, world: World, fd: int, flags: int) -> int:
        del flags
        return _NOTSUP if world.is_open(fd) else _BADF

    def _fd_read(self, world: World, memory: Memory, fd: int, vectors: int, count: int, out: int) -> int:
        if fd != _STDIN or not world.is_open(fd):
            return _BADF
        total = 0
        for at, size in _vectors(memory, vectors, count):
            part = world.stdin[world.stdin_at : world.stdin_at + size]
            memory.write(at, part)
            world.stdin_at += len(part)
            total += len(part)
        memory.write(out, struct.pack("<I", total))
        return _OK

    def _fd_write(self, world: World, memory: Memory, fd: int, vectors: int, count: int, out: int) -> int:
        if fd == _STDIN or not world.is_open(fd):
            return _BADF
        kept = world.stdout if fd == 1 else world.stderr
        total = 0
        for at, size in _vectors(memory, vectors, count):
            room = world.output_bytes - len(kept)
            kept += memory.read(at, min(size, room))
            if size > room:
                world.overflowed = "stdout" if fd == 1 else "stderr"
                raise _Ended
            total += size
        memory.write(out, struct.pack("<I", total & 0xFFFFFFFF))
        return _OK

    def _poll_oneoff(self, world: World, memory: Memory, wanted: int, events: int, count: int, out: int) -> int:
        """Wait for clocks; the streams are always ready. A wait ends at the deadline at the latest."""
        if not 1 <= count <= _MAX_SUBSCRIPTIONS:
            return _INVAL
        now = {clock: read() for clock, (read, _) in _CLOCKS.items()}
        ready: list[bytes] = []
        alarms: list[tuple[int, int]] = []
        raw = memory.read(wanted, count * _SUBSCRIPTION.size)
        for user, kind, which, timeout, _precision, flags in _SUBSCRIPTION.iter_unpack(raw):
            if kind == 0 and which in _CLOCKS:
                alarms.append((max(0, timeout - now[which]) if flags & 1 else timeout, user))
            elif kind in (1, 2) and world.is_open(which) and (kind == 1) == (which == _STDIN):
                ready.append(_EVENT.pack(user, _OK, kind, max(1, len(world.stdin) - world.stdin_at), 0))
            else:
                ready.append(_EVENT.pack(user, _INVAL if kind == 0 else _BADF, kind, 0, 0))
        if not ready:
            first = min(wait for wait, _ in alarms)
            left_s = self._deadlines.left_s(world.token)
            time.sleep(min(first / 1e9, left_s))
            if first / 1e9 >= left_s:
                raise _Ended
            ready = [_EVENT.pack(user, _OK, 0, 0, 0) for wait, user in alarms if wait <= first]
        memory.write(events, b"".join(ready))
        memory.write(out, struct.pack("<I", len(ready)))
        return _OK


def _vectors(memory: Memory, at: int, count: int) -> list[tuple[int, int]]:
    if count > _MAX_IOVECS:
        raise OutOfBounds
    return list(_IOVEC.iter_unpack(memory.read(at, count * _IOVEC.size)))


def _put_sizes(memory: Memory, texts: tuple[bytes, ...], count: int, size: int) -> int:
    memory.write(count, struct.pack("<I", len(texts)))
    memory.write(size, struct.pack("<I", sum(len(text) + 1 for text in texts)))
    return _OK


def _put_texts(memory: Memory, texts: tuple[bytes, ...], pointers: int, at: int) -> int:
    for index, text in enumerate(texts):
        memory.write(pointers + 4 * index, struct.pack("<I", at))
        memory.write(at, text + b"\0")
        at += len(text) + 1
    return _OK


FUNCTIONS: Final = {
    "args_get": "ii",
    "args_sizes_get": "ii",
    "environ_get": "ii",
    "environ_sizes_get": "ii",
    "clock_res_get": "ii",
    "clock_time_get": "ili",
    "fd_advise": "illi",
    "fd_allocate": "ill",
    "fd_close": "i",
    "fd_datasync": "i",
    "fd_fdstat_get": "ii",
    "fd_fdstat_set_flags": "ii",
    "fd_fdstat_set_rights": "ill",
    "fd_filestat_get": "ii",
    "fd_filestat_set_size": "il",
    "fd_filestat_set_times": "illi",
    "fd_pread": "iiili",
    "fd_prestat_get": "ii",
    "fd_prestat_dir_name": "iii",
    "fd_pwrite": "iiili",
    "fd_read": "iiii",
    "fd_readdir": "iiili",
    "fd_renumber": "ii",
    "fd_seek": "ilii",
    "fd_sync": "i",
    "fd_tell": "ii",
    "fd_write": "iiii",
    "path_create_directory": "iii",
    "path_filestat_get": "iiiii",
    "path_filestat_set_times": "iiiilli",
    "path_link": "iiiiiii",
    "path_open": "iiiiillii",
    "path_readlink": "iiiiii",
    "path_remove_directory": "iii",
    "path_rename": "iiiiii",
    "path_symlink": "iiiii",
    "path_unlink_file": "iii",
    "poll_oneoff": "iiii",
    "proc_exit": "i",
    "proc_raise": "i",
    "random_get": "ii",
    "sched_yield": "",
    "sock_accept": "iii",
    "sock_recv": "iiiiii",
    "sock_send": "iiiii",
    "sock_shutdown": "ii",
}
"""Parameters of every function: i is i32, l is i64. All but ``proc_exit`` return an errno."""

_WITH_MEMORY: Final[dict[str, Callable[..., int]]] = {
    "args_get": Wasi._args_get,
    "args_sizes_get": Wasi._args_sizes_get,
    "environ_get": Wasi._environ_get,
    "environ_sizes_get": Wasi._environ_sizes_get,
    "clock_res_get": Wasi._clock_res_get,
    "clock_time_get": Wasi._clock_time_get,
    "fd_fdstat_get": Wasi._fd_fdstat_get,
    "fd_filestat_get": Wasi._fd_filestat_get,
    "fd_read": Wasi._fd_read,
    "fd_write": Wasi._fd_write,
    "poll_oneoff": Wasi._poll_oneoff,
    "random_get": Wasi._random_get,
}
_WITHOUT_MEMORY: Final[dict[str, Callable[..., int]]] = {
    "fd_close": Wasi._fd_close,
    "fd_datasync": Wasi._fd_sync,
    "fd_fdstat_set_flags": Wasi._fd_fdstat_set_flags,
    "fd_seek": Wasi._fd_seek,
    "fd_sync": Wasi._fd_sync,
    "fd_tell": Wasi._fd_tell,
    "proc_exit": Wasi._proc_exit,
    "sched_yield": Wasi._sched_yield,
}
"""What has a meaning without files and sockets, by whether it needs the guest's memory; the rest answers EBADF."""
