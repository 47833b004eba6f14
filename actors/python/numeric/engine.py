"""One Wasmtime store in a Python child, and calls into it at the price of the C calls.

The code that runs here was compiled by us from the guest's functions; it is an
accelerator, not a sandbox: the jail is. So it shares the guest's process, one
memory serves all modules, and nothing here is trusted by the host.

Made in the zygote, before the fork: Wasmtime starts no threads without parallel
compilation, and the memory's 4 GiB of address space (which spare every bounds
check) are then part of what the child's address-space limit counts as there.
"""

from __future__ import annotations

import ctypes
import math
import operator
import struct
import sys
import threading
from collections.abc import Callable, Generator
from importlib.metadata import version
from typing import Final

import wasmtime
from wasmtime import _ffi as ffi

from runvisor.actors.wasm import capi
from runvisor.actors.wasm.fastpath import Frame, address
from runvisor.actors.wasm.library import is_tested, tested_versions
from runvisor.policies.numeric import wat
from runvisor.policies.permissions import GiB, MiB

SLOT_BYTES: Final = capi.VALUE_BYTES
"""Bytes of an argument or result."""
_PAGE_BYTES: Final = 65536
_STACK_BYTES: Final = 1 * MiB
_SPACE_BYTES: Final = 4 * GiB
_SPACE: Final = ctypes.c_ubyte * _SPACE_BYTES
_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_size_t)
_OPERANDS: Final = struct.Struct("<dd")
_U32: Final = struct.Struct("<I")
_CODES: Final = ffi.wasmtime_trap_code_enum
_TRAPS: Final = {
    _CODES.WASMTIME_TRAP_CODE_INTEGER_DIVISION_BY_ZERO.value: wat.ZERO,
    _CODES.WASMTIME_TRAP_CODE_INTEGER_OVERFLOW.value: wat.OVERFLOW,
    _CODES.WASMTIME_TRAP_CODE_STACK_OVERFLOW.value: wat.DEPTH,
}


class Halted(Exception):
    """A call could not go on; nothing it did is to be kept.

    Args:
        reason: Why, in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Engine:
    """A store, its memory, and the functions compiled into it.

    Args:
        memory_bytes: The most that lists of one call may take together.

    Raises:
        OSError: The address space is too small, or this wasmtime's C functions are not known to be as we call them.
    """

    def __init__(self, memory_bytes: int = 256 * MiB) -> None:
        found = version("wasmtime")
        if not is_tested(found):
            raise OSError(f"wasmtime {found} is not among the tested versions ({tested_versions()})")
        config = wasmtime.Config()
        config.parallel_compilation = False
        config.wasm_threads = False
        config.wasm_wide_arithmetic = True
        config.memory_init_cow = False
        config.memory_reservation = _SPACE_BYTES
        config.memory_may_move = False
        config.max_wasm_stack = _STACK_BYTES
        try:
            self._engine = wasmtime.Engine(config)
            self._store = wasmtime.Store(self._engine)
            limits = wasmtime.Limits(1, max(1, memory_bytes // _PAGE_BYTES))
            self._memory = wasmtime.Memory(self._store, wasmtime.MemoryType(limits))
        except wasmtime.WasmtimeError as error:
            raise OSError(str(error)) from None
        self._bytes = _PAGE_BYTES
        self._context = ctypes.cast(self._store._context(), capi.POINTER).value or 0
        base = ctypes.cast(self._memory.data_ptr(self._store), capi.POINTER).value or 0
        self.base = base
        self.view = memoryview(_SPACE.from_address(base)).cast("B")
        """The memory, and address space after it: only places that were allocated may be touched."""
        self.lock = threading.Lock()
        """Held from the first write of arguments to the last read of results."""
        self._frame = Frame(64)
        self._interrupt: BaseException | None = None
        self._linker = wasmtime.Linker(self._engine)
        self._linker.define(self._store, "host", "memory", self._memory)
        self._answering = self._answers()
        next(self._answering)
        self._callback = _CALLBACK(self._answering.__next__)
        kind = wasmtime.FuncType([], [])
        refused = capi.define_func(
            address(self._linker),
            b"host",
            4,
            b"ask",
            3,
            kind.ptr(),
            ctypes.cast(self._callback, capi.POINTER),
            None,
            None,
        )
        if refused:
            raise OSError("the host function could not be defined")
        self._instances: list[wasmtime.Instance] = []

    def load(self, text: str) -> Callable[[bytes, int], memoryview]:
        """Compile a module and return how to call its ``run``.

        The call takes the packed arguments and the larger of the numbers of
        arguments and results, and returns the slots, to be read before the next
        call. The caller holds `lock`. It raises `Halted`, or what a signal handler raised.

        Raises:
            Halted: It is not valid, or too large.
        """
        try:
            module = wasmtime.Module(self._engine, text)
            instance = self._linker.instantiate(self._store, module)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            raise Halted(f"not a valid module: {str(error).splitlines()[0]}") from None
        self._instances.append(instance)
        extern = ctypes.create_string_buffer(capi.EXTERN_BYTES)
        at = ctypes.addressof(extern)
        mine = ctypes.addressof(instance._instance)
        if not capi.export(self._context, mine, b"run", 3, at):
            raise Halted("not a valid module: no run")

        def call(arguments: bytes, slots: int, _keep: object = extern) -> memoryview:
            return self._call(at + capi.EXTERN_OF, arguments, slots)

        return call

    def _call(self, function: int, arguments: bytes, slots: int) -> memoryview:
        frame = self._frame if slots <= self._frame.slots else Frame(slots)
        frame.view[: len(arguments)] = arguments
        _U32.pack_into(self.view, wat.WHY_AT, 0)
        error = capi.call(self._context, function, frame.values, slots, frame.trap_at)
        trap = frame.trap.value
        if error or trap:
            code = ctypes.c_uint8(255)
            if trap:
                capi.trap_code(trap, ctypes.byref(code))
                capi.trap_delete(frame.take_trap())
            if error:
                capi.error_delete(error)
            interrupt, self._interrupt = self._interrupt, None
            if interrupt is not None:
                raise interrupt.with_traceback(None)
            (why,) = _U32.unpack_from(self.view, wat.WHY_AT)
            raise Halted(wat.REASONS[why or _TRAPS.get(code.value, 0)] or "a trap")
        return frame.view

    def limit(self, memory_bytes: int) -> None:
        """Let lists take less than the engine was made for; more is a fallback.

        Args:
            memory_bytes: As for the engine; a share of what the task was granted.
        """
        self._store.set_limits(memory_size=memory_bytes)

    def reserve(self, end: int) -> None:
        """Make addresses below ``end`` usable.

        Raises:
            Halted: The lists are too large together.
        """
        if end <= self._bytes:
            return
        self._bytes = self._memory.data_len(self._store)
        if end > self._bytes:
            pages = -(-(end - self._bytes) // _PAGE_BYTES)
            try:
                self._memory.grow(self._store, pages)
            except wasmtime.WasmtimeError:
                raise Halted("memory") from None
            self._bytes = self._memory.data_len(self._store)

    def _answers(self) -> Generator[int, None, None]:
        """Answer what running code asks; each value is 0, or the address of a trap.

        A generator, not a function: a signal's handler runs where Python code is
        resumed, here inside ``try``, so that an interrupt ends the call instead
        of being lost between C and Python.
        """
        trap = 0
        while True:
            try:
                while True:
                    yield trap
                    trap = 0
                    (which,) = _U32.unpack_from(self.view, wat.ASK_AT)
                    if which == wat.ASK_INTERRUPTS:
                        continue
                    x, y = _OPERANDS.unpack_from(self.view, wat.OPERANDS_AT)
                    name = wat.MATH[which]
                    answer = _TWO[name](x, y) if name in _TWO else _ONE[name](x)
                    if type(answer) is not float:
                        raise ValueError
                    _OPERANDS.pack_into(self.view, wat.OPERANDS_AT, answer, y)
            except GeneratorExit:
                return
            except (ArithmeticError, ValueError):
                trap = int(capi.trap_new(b"domain", 6))
            except BaseException as error:
                self._interrupt = error
                trap = int(capi.trap_new(b"interrupt", 9))


_TWO: Final[dict[str, Callable[[float, float], object]]] = {
    "pow": operator.pow,
    "math.pow": math.pow,
    "atan2": math.atan2,
    "hypot": math.hypot,
    "fmod": math.fmod,
}
_ONE: Final[dict[str, Callable[[float], object]]] = {
    name: getattr(math, name) for name in wat.MATH if name not in _TWO and hasattr(math, name)
}
_process_engine: Engine | None = None
_unavailable = ""


def preload() -> str:
    """Make this process's engine, in the zygote; return why there is none, or nothing."""
    global _process_engine, _unavailable
    if _process_engine is None and not _unavailable:
        try:
            _process_engine = Engine()
        except (OSError, MemoryError) as error:
            _unavailable = str(error) or type(error).__name__
    return _unavailable


def process_engine() -> Engine | None:
    """Return this process's engine, made now if `preload` has not made it."""
    preload()
    return _process_engine


def compensated_sums() -> bool:
    """Whether this interpreter's ``sum`` of floats keeps what rounding loses."""
    return sys.version_info >= (3, 12)
