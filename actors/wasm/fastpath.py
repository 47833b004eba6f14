"""The few Wasmtime C calls that every execution makes, through integers instead of ctypes objects.

The public Python API costs about 50 us per fresh instance, nearly all of it
wrapping; these calls cost about 7 us. Ownership is plain:

- a `Store` owns one ``wasmtime_store_t`` and everything made in it; `Store.close`
  deletes it, once;
- traps and errors that a call returns are owned by the caller: `_stopped` reads
  and deletes them at once and raises `Stopped`;
- engines and pre-linked modules are owned by `wasmtime.Engine` and
  `wasmtime.InstancePre`; only their addresses are borrowed here (`address`), and
  a caller keeps the owner alive meanwhile;
- a callback handed to C lives as long as this module.

Calls that run guest code or unmap its memory release the GIL (``CDLL``); the
others take well under a microsecond and keep it (``PyDLL``).

Sources: wasmtime.h and its parts store.h, instance.h, func.h, trap.h, error.h
(https://docs.wasmtime.dev/c-api/); sizes and offsets come from the ctypes
structures of the wasmtime package, so that they follow its version.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

from wasmtime import _ffi as ffi

_P: Final = ctypes.c_void_p
_SIZE: Final = ctypes.c_size_t
_QUICK: Final = ctypes.PyDLL(str(ffi.filename))
_SLOW: Final = ctypes.CDLL(str(ffi.filename))

VALUE_BYTES: Final = ctypes.sizeof(ffi.wasmtime_val_raw_t)
"""Bytes of one argument or result of an unchecked call."""
_EXTERN_BYTES: Final = ctypes.sizeof(ffi.wasmtime_extern_t)
_EXTERN_OF: Final = ffi.wasmtime_extern_t.of.offset
_INSTANCE_BYTES: Final = ctypes.sizeof(ffi.wasmtime_instance_t)
_KIND_FUNC: Final = ffi.WASMTIME_EXTERN_FUNC.value
_KIND_MEMORY: Final = ffi.WASMTIME_EXTERN_MEMORY.value
_MAX_MESSAGE: Final = 16 * 1024


def _c(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]  # ctypes has no type for it


_store_new: Final = _c(_QUICK, "wasmtime_store_new", _P, _P, _P, _P)
_store_context: Final = _c(_QUICK, "wasmtime_store_context", _P, _P)
_store_delete: Final = _c(_SLOW, "wasmtime_store_delete", None, _P)
_store_limiter: Final = _c(_QUICK, "wasmtime_store_limiter", None, _P, *[ctypes.c_int64] * 5)
_set_epoch_deadline: Final = _c(_QUICK, "wasmtime_context_set_epoch_deadline", None, _P, ctypes.c_uint64)
_on_epoch: Final = _c(_QUICK, "wasmtime_store_epoch_deadline_callback", None, _P, _P, _P, _P)
_set_fuel: Final = _c(_QUICK, "wasmtime_context_set_fuel", _P, _P, ctypes.c_uint64)
_get_fuel: Final = _c(_QUICK, "wasmtime_context_get_fuel", _P, _P, _P)
_instantiate: Final = _c(_SLOW, "wasmtime_instance_pre_instantiate", _P, _P, _P, _P, _P)
_export: Final = _c(_QUICK, "wasmtime_instance_export_get", ctypes.c_bool, _P, _P, ctypes.c_char_p, _SIZE, _P)
_call: Final = _c(_SLOW, "wasmtime_func_call_unchecked", _P, _P, _P, _P, _SIZE, _P)
_memory_data: Final = _c(_QUICK, "wasmtime_memory_data", _P, _P, _P)
_memory_size: Final = _c(_QUICK, "wasmtime_memory_data_size", _SIZE, _P, _P)
_caller_export: Final = _c(_QUICK, "wasmtime_caller_export_get", ctypes.c_bool, _P, ctypes.c_char_p, _SIZE, _P)
_caller_context: Final = _c(_QUICK, "wasmtime_caller_context", _P, _P)
_trap_new: Final = _c(_QUICK, "wasmtime_trap_new", _P, ctypes.c_char_p, _SIZE)
_trap_code: Final = _c(_QUICK, "wasmtime_trap_code", ctypes.c_bool, _P, _P)
_trap_message: Final = _c(_QUICK, "wasm_trap_message", None, _P, _P)
_trap_delete: Final = _c(_QUICK, "wasm_trap_delete", None, _P)
_error_new: Final = _c(_QUICK, "wasmtime_error_new", _P, ctypes.c_char_p)
_error_message: Final = _c(_QUICK, "wasmtime_error_message", None, _P, _P)
_error_delete: Final = _c(_QUICK, "wasmtime_error_delete", None, _P)
_bytes_delete: Final = _c(_QUICK, "wasm_byte_vec_delete", None, _P)
_define_func: Final = _c(
    _QUICK,
    "wasmtime_linker_define_func_unchecked",
    _P,
    _P,
    ctypes.c_char_p,
    _SIZE,
    ctypes.c_char_p,
    _SIZE,
    _P,
    _P,
    _P,
    _P,
)
increment_epoch: Final = _c(_QUICK, "wasmtime_engine_increment_epoch", None, _P)
"""Move an engine's epoch on by one; takes the engine's address."""

_EPOCH_CALLBACK: Final = ctypes.CFUNCTYPE(
    _SIZE, _P, _P, ctypes.POINTER(ctypes.c_uint64), ctypes.POINTER(ctypes.c_uint8)
)
_HOST_CALLBACK: Final = ctypes.CFUNCTYPE(_SIZE, _P, _P, _P, _SIZE)

STACK_OVERFLOW: Final = ffi.wasmtime_trap_code_enum.WASMTIME_TRAP_CODE_STACK_OVERFLOW.value
OUT_OF_FUEL: Final = ffi.wasmtime_trap_code_enum.WASMTIME_TRAP_CODE_OUT_OF_FUEL.value


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


class OutOfBounds(Exception):
    """A host function was given addresses outside the guest's memory."""


def address(managed: Any) -> int:
    """Return the address that an object of the wasmtime package owns."""
    return ctypes.cast(managed.ptr(), _P).value or 0


class Memory:
    """The guest's linear memory, for the length of one host call or between calls.

    Not to be kept: the guest may grow it, which moves its end.
    """

    __slots__ = ("_data", "size")

    def __init__(self, context: int, memory: int) -> None:
        self._data: int = _memory_data(context, memory) or 0
        self.size: int = _memory_size(context, memory)

    def read(self, at: int, size: int) -> bytes:
        """Copy bytes out.

        Raises:
            OutOfBounds: They are not all inside the memory.
        """
        if at < 0 or size < 0 or at + size > self.size:
            raise OutOfBounds
        return ctypes.string_at(self._data + at, size)

    def write(self, at: int, data: bytes | memoryview) -> None:
        """Copy bytes in.

        Raises:
            OutOfBounds: The place is not all inside the memory.
        """
        size = len(data)
        if at < 0 or at + size > self.size:
            raise OutOfBounds
        source = data if isinstance(data, bytes) else ctypes.addressof(ctypes.c_char.from_buffer(data))
        ctypes.memmove(self._data + at, source, size)


class Store:
    """One store and the one instance in it: made for a run, deleted with it.

    Every instance, memory and table counts against the limits; memory that the
    guest asks for beyond them is refused to it as -1.

    Args:
        engine: Address of an engine with epochs on.
        token: Handed to the epoch callback, to know the run by; not zero.
        memory_bytes: Largest linear memory.
        table_elements: Most elements of a table.
        tables: Most tables.
        fuel: Instruction budget; only for an engine that consumes fuel.
    """

    __slots__ = ("_context", "_extern", "_instance", "_store", "_trap")

    def __init__(
        self, engine: int, token: int, *, memory_bytes: int, table_elements: int, tables: int, fuel: int | None = None
    ) -> None:
        store = _store_new(engine, None, None)
        self._store: int | None = store
        self._context: int = _store_context(store)
        self._instance = ctypes.create_string_buffer(_INSTANCE_BYTES)
        self._extern = ctypes.create_string_buffer(_EXTERN_BYTES)
        self._trap = _P()
        _store_limiter(store, memory_bytes, table_elements, 1, tables, 1)
        _set_epoch_deadline(self._context, 1)
        _on_epoch(store, _epoch_callback, token, None)
        if fuel is not None:
            _raise_if(_set_fuel(self._context, fuel), None)

    def instantiate(self, pre: int) -> None:
        """Make the instance; runs the module's start function.

        Args:
            pre: Address of a pre-linked module of the same engine.

        Raises:
            Stopped: The start function did not return, or a limit is too small.
        """
        error = _instantiate(pre, self._context, self._instance, ctypes.byref(self._trap))
        if error or self._trap.value:
            _raise_if(error, self._trap.value)

    def call(self, name: bytes, arguments: bytes, slots: int, results: int) -> bytes:
        """Call an exported function.

        The caller vouches that the export exists and has this shape, and that all
        parameters and results are numbers: nothing checks it here.

        Args:
            name: The export.
            arguments: Raw values, `VALUE_BYTES` each.
            slots: The larger of the numbers of parameters and results.
            results: Number of results.

        Raises:
            Stopped: It did not return.
        """
        if not _export(self._context, self._instance, name, len(name), self._extern):
            raise Stopped(None, f"there is no export {name.decode(errors='replace')!r}")
        if self._extern.raw[0] != _KIND_FUNC:
            raise Stopped(None, f"the export {name.decode(errors='replace')!r} is not a function")
        values = ctypes.create_string_buffer(arguments, max(1, slots) * VALUE_BYTES)
        function = ctypes.addressof(self._extern) + _EXTERN_OF
        error = _call(self._context, function, values, slots, ctypes.byref(self._trap))
        if error or self._trap.value:
            _raise_if(error, self._trap.value)
        return values.raw[: results * VALUE_BYTES]

    def memory(self, name: bytes = b"memory") -> Memory | None:
        """Return an exported memory as it is now, or None if there is none of that name."""
        found = _export(self._context, self._instance, name, len(name), self._extern)
        if not found or self._extern.raw[0] != _KIND_MEMORY:
            return None
        return Memory(self._context, ctypes.addressof(self._extern) + _EXTERN_OF)

    def fuel_left(self) -> int:
        """Return the rest of the instruction budget."""
        left = ctypes.c_uint64()
        _raise_if(_get_fuel(self._context, ctypes.byref(left)), None)
        return left.value

    def close(self) -> None:
        """Delete the store with all that was made in it; closing twice is fine."""
        store, self._store = self._store, None
        if store is not None:
            _store_delete(store)


def caller_memory(caller: int) -> Memory:
    """Return the memory of the guest that called a host function.

    Raises:
        OutOfBounds: It exports none.
    """
    extern = ctypes.create_string_buffer(_EXTERN_BYTES)
    if not _caller_export(caller, b"memory", 6, extern) or extern.raw[0] != _KIND_MEMORY:
        raise OutOfBounds
    return Memory(_caller_context(caller), ctypes.addressof(extern) + _EXTERN_OF)


HostFunction = Callable[[int, bytes], int | None]
"""Takes the caller's address and the raw arguments; returns an i32, or None to end the run."""


def define_function(linker: Any, module: str, name: str, kind: Any, function: HostFunction) -> None:
    """Define a host function in a linker; it and all it refers to live as long as the process.

    Args:
        linker: A `wasmtime.Linker`.
        module: The import's module.
        name: The import's name.
        kind: A `wasmtime.FuncType` of numbers that returns nothing or one i32.
        function: What to call; must not raise.
    """

    def enter(_: int | None, caller: int, values: int, count: int) -> int:
        try:
            answer = function(caller, ctypes.string_at(values, count * VALUE_BYTES))
            if answer is not None:
                ctypes.c_int32.from_address(values).value = answer
                return 0
        except BaseException:  # must not unwind into C; the run ends instead
            pass
        return int(_trap_new(b"ended by the host", 17))

    callback = _HOST_CALLBACK(enter)
    _kept.append(callback)
    _raise_if(
        _define_func(
            address(linker),
            module.encode(),
            len(module.encode()),
            name.encode(),
            len(name.encode()),
            ctypes.cast(kind.ptr(), _P),
            ctypes.cast(callback, _P),
            None,
            None,
        ),
        None,
    )


def decide_epochs_by(may_go_on: Callable[[int], bool]) -> None:
    """Say who decides, when the epoch has moved, whether a run may go on.

    Args:
        may_go_on: Takes the store's token; must not raise. Called in the thread of the run.
    """
    global _may_go_on
    _may_go_on = may_go_on


def _raise_if(error: int | None, trap: int | None) -> None:
    if error or trap:
        raise _stopped(error, trap)


def _stopped(error: int | None, trap: int | None) -> Stopped:
    """Take over an error or a trap: read it, delete it."""
    text = _Bytes()
    if trap:
        code = ctypes.c_uint8()
        has_code = _trap_code(trap, ctypes.byref(code))
        _trap_message(trap, ctypes.byref(text))
        message = text.take()
        _trap_delete(trap)
        return Stopped(code.value if has_code else None, message)
    _error_message(error, ctypes.byref(text))
    message = text.take()
    _error_delete(error)
    return Stopped(None, message)


class _Bytes(ctypes.Structure):
    """A ``wasm_byte_vec_t`` that C fills."""

    _fields_ = (("size", _SIZE), ("data", _P))

    def take(self) -> str:
        text = ctypes.string_at(self.data, min(self.size, _MAX_MESSAGE)) if self.data else b""
        _bytes_delete(ctypes.byref(self))
        return text.rstrip(b"\0\n").decode(errors="replace")


_kept: list[Any] = []
_may_go_on: Callable[[int], bool] = lambda token: False  # noqa: E731


def _at_epoch(_: int | None, token: int | None, delta: Any, kind: Any) -> int:
    try:
        if _may_go_on(token or 0):
            delta[0], kind[0] = 1, 0
            return 0
    except BaseException:  # must not unwind into C; a run that nobody vouches for ends
        pass
    return int(_error_new(b"the deadline has passed"))


_epoch_function: Final = _EPOCH_CALLBACK(_at_epoch)
_epoch_callback: Final = ctypes.cast(_epoch_function, _P)
