"""What the interpreter asks of its host: print, and the few imports that it links with.

A run is known by the thread it runs in, as for WASI.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import wasmtime

from runvisor.actors.wasm import capi
from runvisor.actors.wasm.fastpath import VALUE_BYTES, Frame, Memory
from runvisor.actors.wasm.hostcalls import caller_memory, define_function
from runvisor.actors.wasm.images.quickjs.startup import IMPORTS
from runvisor.actors.wasm.wasi import World

if TYPE_CHECKING:
    from runvisor.actors.wasm.engines import Engine

_WORD: Final = struct.Struct("<I")
_CALL: Final = struct.Struct("<I12xI12xI12xI12xI12x")
_TWO: Final = struct.Struct("<I12xI12x")
_ONE: Final = struct.Struct("<I12x")


@dataclass(slots=True)
class Streams:
    """Where a run prints to."""

    world: World
    words_at: int
    """Scratch memory of the image."""
    undefined: int
    """The handle of that value."""


def enter(streams: Streams) -> None:
    """Let the calling thread's run print here, until it enters another."""
    _own.streams = streams


def define(engine: Engine) -> None:
    """Define what the module imports from ``env`` in an engine's linker."""
    number = wasmtime.ValType.i32
    for name, (parameters, results) in IMPORTS.items():
        kind = wasmtime.FuncType([number() for _ in range(parameters)], [number() for _ in range(results)])
        define_function(engine.linker, "env", name, kind, _print if name == "host_call" else _nothing)


def _nothing(caller: int, raw: bytes) -> int:
    """Answer 0: no offset to UTC, no interrupt, no module of that name."""
    del caller, raw
    return 0


def _print(caller: int, raw: bytes) -> int | None:
    """Take a text, of which the first letter names the stream; end the run when it prints more than it may."""
    _, _, _, count, values_at = _CALL.unpack(raw[: 5 * VALUE_BYTES])
    streams, frame = _own.streams, _own.frame
    memory = caller_memory(caller)
    if count != 1:
        return None
    (text_at,) = _WORD.unpack(memory.read(values_at, 4))
    length_at = streams.words_at + 24
    at = _call(caller, frame, b"qjs_get_string_len", _TWO.pack(text_at, length_at))
    if not at:
        return None
    memory = caller_memory(caller)
    data = _read_text(memory, at, _WORD.unpack(memory.read(length_at, 4))[0])
    world = streams.world
    kept, name = (world.stderr, "stderr") if data[:1] == b"2" else (world.stdout, "stdout")
    room = world.output_bytes - len(kept)
    kept += data[1 : 1 + room]
    if len(data) - 1 > room:
        world.overflowed = name
        return None
    if world.on_output is not None:
        world.on_output()
    _call(caller, frame, b"qjs_free_cstring", _ONE.pack(at))
    return _call(caller, frame, b"qjs_dup_value", _ONE.pack(streams.undefined)) or None


def _read_text(memory: Memory, at: int, size: int) -> bytes:
    """Read UTF-8; a lone surrogate, which that cannot say, becomes the replacement character as in V8."""
    data = memory.read(at, size)
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogatepass").encode("utf-8", "replace")
    return data


def _call(caller: int, frame: Frame, name: bytes, arguments: bytes) -> int:
    """Call an export of the guest that called us, and return its result; 0 when it did not return."""
    if not capi.caller_export(caller, name, len(name), frame.extern):
        return 0
    frame.view[: len(arguments)] = arguments
    context = capi.caller_context(caller)
    error = capi.call(context, frame.extern + capi.EXTERN_OF, frame.values, frame.slots, frame.trap_at)
    trap = frame.take_trap()
    if error:
        capi.error_delete(error)
    if trap:
        capi.trap_delete(trap)
    if error or trap:
        return 0
    return ctypes.c_uint32.from_address(frame.values).value


class _Own(threading.local):
    """What belongs to the run of a thread."""

    def __init__(self) -> None:
        self.frame = Frame(2)
        self.streams: Streams


_own: Final = _Own()
