"""Arguments, environment, clocks, randomness, and the end of a program."""

from __future__ import annotations

import os
from typing import Final

from runvisor.actors.wasm.fastpath import Memory
from runvisor.actors.wasm.wasi.abi import U32, U64, Ended, Errno
from runvisor.actors.wasm.wasi.world import World

_RANDOM_CHUNK: Final = 1 << 16
_HARMLESS_SIGNALS: Final = frozenset({0, 16, 17, 22, 27})
"""None, CHLD, CONT, URG and WINCH do nothing by themselves."""
_MAX_SIGNAL: Final = 30
_BY_SIGNAL: Final = 128


def args_sizes_get(world: World, memory: Memory, count: int, size: int) -> int:
    """Say how many arguments there are, and how large they are together."""
    return _put_sizes(memory, world.arguments, count, size)


def args_get(world: World, memory: Memory, pointers: int, texts: int) -> int:
    """Give the arguments."""
    return _put_texts(memory, world.arguments, pointers, texts)


def environ_sizes_get(world: World, memory: Memory, count: int, size: int) -> int:
    """Say how many variables there are, and how large they are together."""
    return _put_sizes(memory, world.environment, count, size)


def environ_get(world: World, memory: Memory, pointers: int, texts: int) -> int:
    """Give the environment."""
    return _put_texts(memory, world.environment, pointers, texts)


def clock_res_get(world: World, memory: Memory, clock: int, out: int) -> int:
    """Give a clock's resolution."""
    try:
        memory.write(out, U64.pack(world.ambient.resolution_ns(clock)))
    except KeyError:
        return Errno.INVAL
    return Errno.SUCCESS


def clock_time_get(world: World, memory: Memory, clock: int, precision: int, out: int) -> int:
    """Give a clock's time."""
    del precision
    try:
        memory.write(out, U64.pack(world.ambient.now_ns(clock)))
    except KeyError:
        return Errno.INVAL
    return Errno.SUCCESS


def random_get(world: World, memory: Memory, out: int, size: int) -> int:
    """Give random bytes, as many as the deadline lets pass."""
    for at in range(0, size, _RANDOM_CHUNK):
        memory.write(out + at, world.ambient.random_bytes(min(_RANDOM_CHUNK, size - at)))
        world.check_time()
    return Errno.SUCCESS


def sched_yield(world: World) -> int:
    """Let others run."""
    del world
    os.sched_yield()
    return Errno.SUCCESS


def proc_exit(world: World, code: int) -> int:
    """End the run with a code."""
    world.exit_code = code
    raise Ended


def proc_raise(world: World, number: int) -> int:
    """Do what a signal does by default: nothing, or the end of the program, as shells number it."""
    if number > _MAX_SIGNAL:
        return Errno.INVAL
    if number in _HARMLESS_SIGNALS:
        return Errno.SUCCESS
    world.exit_code = _BY_SIGNAL + number
    raise Ended


def _put_sizes(memory: Memory, texts: tuple[bytes, ...], count: int, size: int) -> int:
    memory.write(count, U32.pack(len(texts)))
    memory.write(size, U32.pack(sum(len(text) + 1 for text in texts)))
    return Errno.SUCCESS


def _put_texts(memory: Memory, texts: tuple[bytes, ...], pointers: int, at: int) -> int:
    for index, text in enumerate(texts):
        memory.write(pointers + 4 * index, U32.pack(at))
        memory.write(at, text + b"\0")
        at += len(text) + 1
    return Errno.SUCCESS
