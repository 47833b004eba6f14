"""Stores and instances at the price of the C calls they need: about 7 us for a fresh one.

The public Python API costs about 50 us, nearly all of it wrapping. Ownership is
plain:

- a `Store` owns one ``wasmtime_store_t`` and everything made in it; `Store.close`
  deletes it, once;
- traps and errors that a call returns are owned by the caller: `_stopped` reads
  and deletes them at once, and they go on as `Stopped`;
- engines and pre-linked modules are owned by `wasmtime.Engine` and
  `wasmtime.InstancePre`; only their addresses are borrowed here (`address`), and
  a caller keeps the owner alive meanwhile;
- a `Frame` is memory of ours that C writes answers to.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Callable
from typing import Any, Final

from runvisor.actors.wasm import capi

VALUE_BYTES: Final = capi.VALUE_BYTES
_MAX_MESSAGE: Final = 16 * 1024
_MOST_INTEGERS: Final = 5
_INTEGERS: Final = [struct.Struct("<" + "I12x" * count) for count in range(_MOST_INTEGERS + 1)]
_INTEGER: Final = struct.Struct("<I")
_NUMBERED: Final = re.compile(r"^\s*(\d+: )?")


class Stopped(Exception):
    """Guest code did not return: it trapped, or a host function or the deadline ended it.

    Args:
        code: Wasmtime's trap code, or None where the host ended it.
        message: What Wasmtime says, the wasm backtrace included.
    """

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    @property
    def reason(self) -> str:
        """The innermost cause, in one line."""
        last = (self.message.strip().splitlines() or ["the guest stopped"])[-1]
        return _NUMBERED.sub("", last)


class OutOfBounds(Exception):
    """A host function was given addresses outside the guest's memory."""


def address(managed: Any) -> int:
    """Return the address that an object of the wasmtime package owns."""
    return ctypes.cast(managed.ptr(), capi.POINTER).value or 0


class Memory:
    """The guest's linear memory, for the length of one host call or between calls.

    Its beginning stays where it is (a slot of the pool has room for the largest memory), so it may be
    kept as long as the store; but the guest may grow it, and `size` is as it was.
    """

    __slots__ = ("_data", "size")

    def __init__(self, context: int, memory: int) -> None:
        self._data: int = capi.memory_data(context, memory) or 0
        self.size: int = capi.memory_size(context, memory)

    def read(self, at: int, size: int) -> bytes:
        """Copy bytes out.

        Raises:
            OutOfBounds: They are not all inside the memory.
        """
        if at < 0 or size < 0 or at + size > self.size:
            raise OutOfBounds
        return ctypes.string_at(self._data + at, size)

    def write(self, at: int, data: bytes) -> None:
        """Copy bytes in.

        Raises:
            OutOfBounds: The place is not all inside the memory.
        """
        if at < 0 or at + len(data) > self.size:
            raise OutOfBounds
        ctypes.memmove(self._data + at, data, len(data))

    def copy_in(self, at: int, source: int, size: int) -> None:
        """Copy from an address of this process.

        Args:
            at: Where to.
            source: Address of at least ``size`` bytes that the caller keeps alive.
            size: Bytes.

        Raises:
            OutOfBounds: The place is not all inside the memory.
        """
        if at < 0 or size < 0 or at + size > self.size:
            raise OutOfBounds
        ctypes.memmove(self._data + at, source, size)

    def copy_out(self, at: int, target: int, size: int) -> None:
        """Copy to an address of this process.

        Args:
            at: Where from.
            target: Address of at least ``size`` writable bytes that the caller keeps alive.
            size: Bytes.

        Raises:
            OutOfBounds: The place is not all inside the memory.
        """
        if at < 0 or size < 0 or at + size > self.size:
            raise OutOfBounds
        ctypes.memmove(target, self._data + at, size)

    def zero(self, at: int, size: int) -> None:
        """Set bytes to zero.

        Raises:
            OutOfBounds: The place is not all inside the memory.
        """
        if at < 0 or size < 0 or at + size > self.size:
            raise OutOfBounds
        ctypes.memset(self._data + at, 0, size)


class Frame:
    """Memory that C writes its answers to; one for each thread, used by one store at a time."""

    __slots__ = ("_buffers", "extern", "function", "instance", "slots", "trap", "trap_at", "values", "view")

    def __init__(self, slots: int = 16) -> None:
        instance = ctypes.create_string_buffer(capi.INSTANCE_BYTES)
        extern = ctypes.create_string_buffer(capi.EXTERN_BYTES)
        values = ctypes.create_string_buffer(slots * VALUE_BYTES)
        self.trap = capi.POINTER()
        self.slots = slots
        self.view = memoryview(values).cast("B")
        self.instance = ctypes.addressof(instance)
        self.extern = ctypes.addressof(extern)
        self.function = self.extern + capi.EXTERN_OF
        self.values = ctypes.addressof(values)
        self.trap_at = ctypes.addressof(self.trap)
        self._buffers = (instance, extern, values)

    def take_trap(self) -> int | None:
        """Return the trap that a call left, and leave none behind."""
        trap = self.trap.value
        self.trap.value = None
        return trap


class Found:
    """An exported function, as C finds it again."""

    __slots__ = ("_buffer", "extern", "function")

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(capi.EXTERN_BYTES)
        self.extern = ctypes.addressof(self._buffer)
        self.function = self.extern + capi.EXTERN_OF


class Store:
    """One store and the one instance in it: made for a run, deleted with it.

    Made ahead of the run, it has no limits yet; `limit` comes before anything else.

    Args:
        engine: Address of an engine with epochs on.
        frame: The calling thread's.
        token: Handed to the epoch callback, to know the run by; not zero.
    """

    __slots__ = ("_context", "_frame", "_has_instance", "_store", "token")

    def __init__(self, engine: int, frame: Frame, token: int) -> None:
        store = capi.store_new(engine, None, None)
        self._store: int | None = store
        self._context: int = capi.store_context(store)
        self._frame = frame
        self._has_instance = False
        self.token = token
        capi.set_epoch_deadline(self._context, 1)
        capi.on_epoch(store, _epoch_callback, token, None)

    def limit(
        self,
        memory_bytes: int,
        table_elements: int,
        tables: int,
        fuel: int | None = None,
        *,
        instances: int = 1,
        memories: int = 1,
    ) -> None:
        """Bound what the run may take. What the guest asks for beyond it is refused to it as -1.

        Args:
            memory_bytes: Largest linear memory.
            table_elements: Most elements of a table.
            tables: Most tables.
            fuel: Instruction budget; only for an engine that consumes fuel.
            instances: Most core instances; a component has several.
            memories: Most linear memories, of all instances together.
        """
        capi.store_limiter(self._store, memory_bytes, table_elements, instances, tables, memories)
        if fuel is not None:
            raise_if(capi.set_fuel(self._context, fuel), None)

    def instantiate(self, pre: int) -> None:
        """Make the instance; runs the module's start function.

        Args:
            pre: Address of a pre-linked module of the same engine.

        Raises:
            Stopped: The start function did not return, or a limit is too small.
        """
        frame = self._frame
        error = capi.instantiate(pre, self._context, frame.instance, frame.trap_at)
        if error or frame.trap:
            raise_if(error, frame.take_trap())
        self._has_instance = True

    def call(self, name: bytes, arguments: bytes, slots: int, result_bytes: int) -> bytes:
        """Call an exported function.

        The caller vouches, by the module's own types, that the export is a function
        of this shape and that all parameters and results are numbers: nothing checks
        it here. A store without an instance has no exports.

        Args:
            name: The export.
            arguments: Raw values, `VALUE_BYTES` each.
            slots: The larger of the numbers of parameters and results.
            result_bytes: `VALUE_BYTES` for each result.

        Raises:
            Stopped: It did not return.
        """
        mine = self._frame
        if not (self._has_instance and capi.export(self._context, mine.instance, name, len(name), mine.extern)):
            raise Stopped(None, f"there is no exported function {name.decode(errors='replace')!r}")
        frame = mine if slots <= mine.slots else Frame(slots)
        frame.view[: len(arguments)] = arguments
        error = capi.call(self._context, mine.function, frame.values, slots, frame.trap_at)
        if error or frame.trap:
            raise_if(error, frame.take_trap())
        return frame.view[:result_bytes].tobytes()

    def find(self, name: bytes) -> Found:
        """Find an exported function ahead of calls with `call_found`.

        Raises:
            Stopped: There is none.
        """
        found = Found()
        if not (self._has_instance and capi.export(self._context, self._frame.instance, name, len(name), found.extern)):
            raise Stopped(None, f"there is no exported function {name.decode(errors='replace')!r}")
        return found

    def call_found(self, found: Found, *arguments: int) -> int:
        """Call a function that takes and gives 32-bit integers; the caller vouches for it, as for `call`.

        Args:
            found: The function, of this store.
            arguments: Unsigned, at most `_MOST_INTEGERS`.

        Raises:
            Stopped: It did not return.
        """
        frame = self._frame
        _INTEGERS[len(arguments)].pack_into(frame.view, 0, *arguments)
        error = capi.call(self._context, found.function, frame.values, _MOST_INTEGERS, frame.trap_at)
        if error or frame.trap:
            raise_if(error, frame.take_trap())
        result: int = _INTEGER.unpack_from(frame.view)[0]
        return result

    def memory(self, name: bytes = b"memory") -> Memory | None:
        """Return an exported memory as it is now, or None if there is none of that name."""
        extern = self._frame.extern
        if not (self._has_instance and capi.export(self._context, self._frame.instance, name, len(name), extern)):
            return None
        if ctypes.string_at(extern, 1)[0] != capi.KIND_MEMORY:
            return None
        return Memory(self._context, extern + capi.EXTERN_OF)

    def fuel_left(self) -> int:
        """Return the rest of the instruction budget."""
        left = ctypes.c_uint64()
        raise_if(capi.get_fuel(self._context, ctypes.byref(left)), None)
        return left.value

    @property
    def context(self) -> int:
        """Address of its ``wasmtime_context_t``, for other calls into C; valid until `close`."""
        return self._context

    def close(self) -> None:
        """Delete the store with all that was made in it; closing twice is fine."""
        store, self._store = self._store, None
        if store is not None:
            capi.store_delete(store)


def decide_epochs_by(may_go_on: Callable[[int], bool]) -> None:
    """Say who decides, when the epoch has moved, whether a run may go on.

    Args:
        may_go_on: Takes the store's token; must not raise. Called in the thread of the run.
    """
    global _may_go_on
    _may_go_on = may_go_on


def raise_if(error: int | None, trap: int | None) -> None:
    """Raise what a C call returned, if it returned something.

    Args:
        error: Address of a ``wasmtime_error_t``, or nothing; owned from here on.
        trap: Address of a ``wasm_trap_t``, or nothing; owned from here on.

    Raises:
        Stopped: There was one.
    """
    if error or trap:
        raise _stopped(error, trap)


def _stopped(error: int | None, trap: int | None) -> Stopped:
    """Take over an error or a trap: read it, delete it."""
    text = _Bytes()
    if trap:
        code = ctypes.c_uint8()
        has_code = capi.trap_code(trap, ctypes.byref(code))
        capi.trap_message(trap, ctypes.byref(text))
        message = text.take()
        capi.trap_delete(trap)
        return Stopped(code.value if has_code else None, message)
    capi.error_message(error, ctypes.byref(text))
    message = text.take()
    capi.error_delete(error)
    return Stopped(None, message)


class _Bytes(ctypes.Structure):
    """A ``wasm_byte_vec_t`` that C fills."""

    _fields_ = (("size", capi.SIZE), ("data", capi.POINTER))

    def take(self) -> str:
        text = ctypes.string_at(self.data, min(self.size, _MAX_MESSAGE)) if self.data else b""
        capi.bytes_delete(ctypes.byref(self))
        return text.rstrip(b"\0\n").decode(errors="replace")


_may_go_on: Callable[[int], bool] | None = None


def _at_epoch(_: int | None, token: int | None, delta: Any, kind: Any) -> int:
    try:
        if _may_go_on is not None and _may_go_on(token or 0):
            delta[0], kind[0] = 1, 0
            return 0
    except BaseException:  # must not unwind into C; a run that nobody vouches for ends
        pass
    return int(capi.error_new(b"the deadline has passed"))


_epoch_function: Final = capi.EPOCH_CALLBACK(_at_epoch)
_epoch_callback: Final = ctypes.cast(_epoch_function, capi.POINTER)
