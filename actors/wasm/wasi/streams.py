"""The three standard streams: stdin is all there at once, output is capped where it is written."""

from __future__ import annotations

from runvisor.actors.wasm.fastpath import Memory
from runvisor.actors.wasm.wasi.abi import Ended, Errno, Failure, Right
from runvisor.actors.wasm.wasi.descriptors import Stream
from runvisor.actors.wasm.wasi.world import World

STDIN, STDOUT, STDERR = 0, 1, 2


def read_stdin(world: World, memory: Memory, stream: Stream, buffers: list[tuple[int, int]]) -> int:
    """Fill buffers from what is left of stdin; return how many bytes."""
    if stream.number != STDIN:
        raise Failure(Errno.BADF)
    stream.require(Right.FD_READ)
    total = 0
    for at, size in buffers:
        part = world.stdin[world.stdin_at : world.stdin_at + size]
        memory.write(at, part)
        world.stdin_at += len(part)
        total += len(part)
    return total


def write_output(world: World, memory: Memory, stream: Stream, buffers: list[tuple[int, int]]) -> int:
    """Keep what is written; return how many bytes.

    Raises:
        Ended: It is more than the cap; the part before it is kept.
    """
    if stream.number == STDIN:
        raise Failure(Errno.BADF)
    stream.require(Right.FD_WRITE)
    kept = world.stdout if stream.number == STDOUT else world.stderr
    total = 0
    for at, size in buffers:
        room = world.output_bytes - len(kept)
        kept += memory.read(at, min(size, room))
        if size > room:
            world.overflowed = "stdout" if stream.number == STDOUT else "stderr"
            raise Ended
        total += size
    if world.on_output is not None and total:
        world.on_output()
    return total & 0xFFFFFFFF
