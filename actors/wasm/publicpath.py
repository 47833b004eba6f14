"""Stores and instances through wasmtime's public Python API: what `fastpath` does, for versions it is not tested on.

Two things differ. The API has no way to ask, when the epoch moves, whether a run
may go on; so epochs are ticks here (`TICK_S`), each store gets as many as its
deadline is away, and a run may end some ticks late, never early. And the exception
by which a host function ends a run lies in a global of the package, where another
thread's run finds it: so the package is told not to raise what lies there.
"""

from __future__ import annotations

import ctypes
import math
import struct
import threading
from collections.abc import Callable
from typing import Any, Final

import wasmtime

from runvisor.actors.wasm.fastpath import VALUE_BYTES, Memory, OutOfBounds, Stopped

TICK_S: Final = 0.005
_NEVER: Final = 1 << 60
_ENDED: Final = "ended by the host"
_FORMATS: Final = {"i32": "<i12x", "i64": "<q8x", "f32": "<f12x", "f64": "<d8x"}
_MAX_MESSAGE: Final = 16 * 1024

HostFunction = Callable[[Any, bytes], int | None]
"""Takes the caller, for `hostcalls.caller_memory`, and the raw arguments; returns an i32, or None to end the run."""


class PublicMemory(Memory):
    """A guest's memory; see `Memory`."""

    __slots__ = ()

    def __init__(self, store: Any, memory: wasmtime.Memory) -> None:
        self.size = memory.data_len(store)
        self._data = ctypes.addressof(memory.data_ptr(store).contents) if self.size else 0


class PublicStore:
    """One store and the one instance in it; the same contract as `fastpath.Store`.

    Args:
        engine: An engine with epochs on.
        token: What the run is known by; not zero.
        left_s: Takes the token, and returns the seconds that the run still has.
    """

    __slots__ = ("_ended", "_instance", "_left_s", "_store", "token")

    def __init__(self, engine: wasmtime.Engine, token: int, left_s: Callable[[int], float]) -> None:
        self._store: wasmtime.Store | None = wasmtime.Store(engine)
        self._store.set_epoch_deadline(_NEVER)
        self._instance: wasmtime.Instance | None = None
        self._left_s = left_s
        self._ended = False
        self.token = token

    def limit(self, memory_bytes: int, table_elements: int, tables: int, fuel: int | None = None) -> None:
        """See `fastpath.Store.limit`."""
        store = self._open()
        store.set_limits(memory_bytes, table_elements, 1, tables, 1)
        if fuel is not None:
            store.set_fuel(fuel)

    def instantiate(self, pre: wasmtime.InstancePre) -> None:
        """See `fastpath.Store.instantiate`; takes the linked module itself."""
        self._instance = self._guarded(pre.instantiate)

    def call(self, name: bytes, arguments: bytes, slots: int, result_bytes: int) -> bytes:
        """See `fastpath.Store.call`."""
        del slots
        function = self._export(name)
        if not isinstance(function, wasmtime.Func):
            raise Stopped(None, f"there is no exported function {name.decode(errors='replace')!r}")
        kind = function.type(self._open())
        values = [
            struct.unpack_from(_FORMATS[str(parameter)], arguments, index * VALUE_BYTES)[0]
            for index, parameter in enumerate(kind.params)
        ]
        answer = self._guarded(lambda store: function(store, *values))
        results = [] if answer is None else answer if isinstance(answer, list) else [answer]
        packed = [struct.pack(_FORMATS[str(k)], value) for k, value in zip(kind.results, results, strict=True)]
        return b"".join(packed)[:result_bytes]

    def memory(self, name: bytes = b"memory") -> Memory | None:
        """See `fastpath.Store.memory`."""
        memory = self._export(name)
        return PublicMemory(self._open(), memory) if isinstance(memory, wasmtime.Memory) else None

    def fuel_left(self) -> int:
        """See `fastpath.Store.fuel_left`."""
        return self._open().get_fuel()

    def close(self) -> None:
        """Delete the store with all that was made in it; closing twice is fine."""
        store, self._store = self._store, None
        self._instance = None
        if store is not None:
            store.close()

    def note_end(self) -> None:
        """Note that a host function ends the run."""
        self._ended = True

    def _open(self) -> wasmtime.Store:
        if self._store is None:
            raise Stopped(None, "the store is closed")
        return self._store

    def _export(self, name: bytes) -> Any:
        if self._instance is None:
            return None
        return self._instance.exports(self._open()).get(name.decode(errors="replace"))

    def _guarded(self, run: Callable[[wasmtime.Store], Any]) -> Any:
        """Run guest code until its deadline."""
        store = self._open()
        left_s = min(self._left_s(self.token), 1e9)
        store.set_epoch_deadline(math.ceil(left_s / TICK_S) + 1)
        _running.store = self
        try:
            answer = run(store)
        except wasmtime.Trap as trap:
            code = trap.trap_code
            if self._ended or code is wasmtime.TrapCode.INTERRUPT:
                code = None
            raise Stopped(None if code is None else code.value, trap.message[:_MAX_MESSAGE]) from None
        except _EndedByHost:
            raise Stopped(None, _ENDED) from None
        except wasmtime.WasmtimeError as error:
            raise _stopped(str(error)[:_MAX_MESSAGE], is_ended=self._ended) from None
        finally:
            _running.store = None
        return answer


class PublicLinker(wasmtime.Linker):
    """A linker whose host functions are called through the public API."""


def define_public(
    linker: PublicLinker, module: str, name: str, kind: wasmtime.FuncType, function: HostFunction
) -> None:
    """Define a host function; see `hostcalls.define_function`."""
    formats = [_FORMATS[str(parameter)] for parameter in kind.params]
    has_result = bool(kind.results)

    def enter(caller: wasmtime.Caller, *values: Any) -> int | None:
        try:
            raw = b"".join(struct.pack(form, value) for form, value in zip(formats, values, strict=True))
            answer = function(caller, raw)
        except BaseException:  # what it holds must not stay in the package's global; the run ends
            answer = None
        if answer is None:
            if _running.store is not None:
                _running.store.note_end()
            raise _EndedByHost
        return ctypes.c_int32(answer).value if has_result else None

    linker.define_func(module, name, kind, enter, access_caller=True)


def public_memory(caller: wasmtime.Caller) -> Memory:
    """Return the memory of the guest that called a host function.

    Raises:
        OutOfBounds: It exports none.
    """
    memory = caller.get("memory")
    if not isinstance(memory, wasmtime.Memory):
        raise OutOfBounds
    return PublicMemory(caller, memory)


class _Running(threading.local):
    """The store whose guest code the thread runs."""

    store: PublicStore | None = None


_running: Final = _Running()


class _EndedByHost(Exception):
    """A host function ends the run that called it."""


def _keep_exceptions_apart() -> None:
    """Have each trap raised as itself. A version without this switch may lose a trap's reason to another run's end."""
    if hasattr(wasmtime._func, "maybe_raise_last_exn"):
        wasmtime._func.maybe_raise_last_exn = lambda: None


_keep_exceptions_apart()


def _stopped(message: str, *, is_ended: bool) -> Stopped:
    """Find the trap's code in an error's last line: errors of the API carry none."""
    last = message.strip().splitlines()[-1] if message.strip() else ""
    code = next((code for text, code in _TEXTS.items() if text in last), None)
    return Stopped(None if is_ended else code, message)


_TEXTS: Final = {
    "call stack exhausted": wasmtime.TrapCode.STACK_OVERFLOW.value,
    "all fuel consumed": wasmtime.TrapCode.OUT_OF_FUEL.value,
    "unreachable": wasmtime.TrapCode.UNREACHABLE.value,
}
