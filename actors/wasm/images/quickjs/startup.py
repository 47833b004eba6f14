"""Starts QuickJS once, in a store of the builder's, and takes the snapshot.

What runs here is pinned code and ours; no task's. The public API of wasmtime
will do: nobody waits for it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

import wasmtime

from runvisor.actors.wasm.images import snapshot
from runvisor.actors.wasm.images.manifest import Fact
from runvisor.actors.wasm.images.quickjs import script
from runvisor.policies.errors import SpawnFailed
from runvisor.policies.permissions import KiB, MiB

SHADOW_STACK_BYTES: Final = 4 * MiB
"""What C code keeps on its stack in linear memory; QuickJS throws a RangeError before it is full."""
_LARGEST_GAP_BYTES: Final = 8 * KiB
"""Larger gaps than this are few."""
_LARGEST_PIECE_BYTES: Final = 512
_GC_BYTES: Final = 8 * MiB
"""Up to this size of the heap no cycles are looked for: that touches every object there is, the image's too."""
_STACK_RESERVE_BYTES: Final = 64 * KiB
SCRATCH_BYTES: Final = 16 * KiB
"""Room for code that saves asking the guest for it. Pages of it that a task does not use are never there."""
_HOT_BYTES: Final = 192 * KiB
"""Room for what a small task makes, beside what the interpreter itself touches: see `start`."""
_FILENAME: Final = b"task.js"
_STACK_GLOBAL: Final = "__stack_pointer"
_EXPORTS: Final = (
    "memory",
    script.NAME,
    "qjs_eval",
    "qjs_call",
    "qjs_is_exception",
    "qjs_get_exception",
    "qjs_dup_value",
    "qjs_get_string_len",
    "qjs_new_string",
    "qjs_new_array_buffer",
    "qjs_get_array_buffer",
    "qjs_execute_pending_job",
    "wasm_malloc",
    "wasm_free",
)
IMPORTS: Final[Mapping[str, tuple[int, int]]] = {
    "host_call": (5, 1),
    "host_get_timezone_offset": (2, 1),
    "host_interrupt": (0, 1),
    "host_promise_rejection": (3, 0),
    "host_module_normalize": (2, 1),
    "host_module_load": (2, 1),
}
"""What the module imports from ``env``, all of 32-bit integers: how many parameters and results."""
ENTRIES: Final = (
    "begin",
    "add_buffer",
    "finish_script",
    "finish_module",
    "fail",
    "tell",
    "tick",
    "leaf",
    "install",
)
"""What the driver's function returns, in order."""


def start(module: bytes, driver: str, parts: str) -> tuple[bytes, Mapping[str, Fact]]:
    """Return the module as it is when QuickJS runs and the driver is loaded, and where in its memory what is.

    The first touch of each page costs a run about 5 us, so what every task
    touches is made first and lies together, with free room right beside it; every
    other gap in the heap is closed. The engine keeps that part resident.

    Raises:
        SpawnFailed: It does not start as it should.
    """
    instrumented, names = snapshot.instrument(module)
    guest = _Guest(instrumented)
    guest.call("_initialize")
    if guest.call("qjs_init"):
        raise SpawnFailed("QuickJS does not start", "images")
    room = guest.allocate(_HOT_BYTES)
    facts: dict[str, Fact] = {"scratch_at": guest.allocate(SCRATCH_BYTES), "scratch_bytes": SCRATCH_BYTES}
    facts |= {"filename_at": guest.put(_FILENAME), "words_at": guest.allocate(32)}
    facts |= guest.load(driver)
    guest.install(parts, int(facts["install"]))
    guest.move_stack()
    facts["random_at"] = guest.random_state()
    guest.call("qjs_run_gc")
    guest.call("qjs_set_gc_threshold", _GC_BYTES)
    guest.close_gaps()
    guest.call("wasm_free", room)
    guest.open_pieces()
    values = {index: guest.global_value(name) for name, index in names.items()}
    return snapshot.rewrite(script.with_script(module, facts), guest.memory_contents(), values, _EXPORTS), facts


class _Guest:
    def __init__(self, module: bytes) -> None:
        engine = wasmtime.Engine()
        self._store = wasmtime.Store(engine)
        self._store.set_wasi(wasmtime.WasiConfig())
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        number = wasmtime.ValType.i32()
        for name, (parameters, results) in IMPORTS.items():
            kind = wasmtime.FuncType([number] * parameters, [number] * results)
            linker.define_func("env", name, kind, (lambda *_: 0) if results else (lambda *_: None))
        instance = linker.instantiate(self._store, wasmtime.Module(engine, module))
        self._exports = instance.exports(self._store)
        memory = self._exports["memory"]
        assert isinstance(memory, wasmtime.Memory)
        self._memory = memory
        self._highest = 0

    def call(self, name: str, *arguments: int) -> Any:
        function = self._exports[name]
        assert isinstance(function, wasmtime.Func)
        return function(self._store, *arguments)

    def read(self, at: int, size: int) -> bytes:
        return bytes(self._memory.read(self._store, at, at + size))

    def memory_contents(self) -> bytes:
        return bytes(self._memory.read(self._store))

    def global_value(self, name: str) -> float:
        found = self._exports[name]
        assert isinstance(found, wasmtime.Global)
        value = found.value(self._store)
        assert isinstance(value, int | float)
        return value

    def allocate(self, size: int) -> int:
        at = self.call("wasm_malloc", size)
        if not at:
            raise SpawnFailed("QuickJS has no memory", "images")
        self._memory.write(self._store, bytes(size), at)
        self._highest = max(self._highest, at)
        return int(at)

    def put(self, text: bytes) -> int:
        at = self.allocate(len(text) + 1)
        self._memory.write(self._store, text, at)
        return at

    def text(self, value: int) -> str:
        length_at = self.allocate(4)
        at = self.call("qjs_get_string_len", value, length_at)
        (size,) = struct.unpack("<I", self.read(length_at, 4))
        return self.read(at, size).decode()

    def close_gaps(self) -> None:
        """Take every free piece of the heap, so that what is made later comes from the room beside the hot part."""
        context = self.call("qjs_get_context_ptr")
        for size in range(_LARGEST_GAP_BYTES, 0, -8):  # QuickJS keeps pieces of the heap for each size
            while (at := self.call("js_malloc", context, size)) <= self._highest:
                pass
            self.call("js_free", context, at)
        for size in range(_LARGEST_GAP_BYTES, 0, -8):
            while (at := self.call("wasm_malloc", size)) <= self._highest:
                pass
            self.call("wasm_free", at)

    def open_pieces(self) -> None:
        """Have QuickJS keep a piece of the room for each size of its small objects."""
        context = self.call("qjs_get_context_ptr")
        for size in range(8, _LARGEST_PIECE_BYTES, 8):
            self.call("js_malloc", context, size)

    def move_stack(self) -> None:
        """Give C a stack of a size of ours: the linker's allows a tenth of the calls that V8 does."""
        top = (self.allocate(SHADOW_STACK_BYTES) + SHADOW_STACK_BYTES) & ~15
        pointer = self._exports[_STACK_GLOBAL]
        assert isinstance(pointer, wasmtime.Global)
        pointer.set_value(self._store, wasmtime.Val.i32(top))
        runtime = self.call("qjs_get_runtime_ptr")
        self.call("JS_UpdateStackTop", runtime)
        self.call("JS_SetMaxStackSize", runtime, SHADOW_STACK_BYTES - _STACK_RESERVE_BYTES)

    def evaluate(self, code: str) -> int:
        data = code.encode()
        value: int = self.call("qjs_eval", self.put(data), len(data), self.put(b"driver.js"), 0)
        self._check(value)
        return value

    def load(self, driver: str) -> Mapping[str, int]:
        """Run the driver, and return the handles of what it gives the host."""
        host = self.call("qjs_new_host_function", self.put(b"host"), 4, 0)
        arguments = self.put(struct.pack("<I", host))
        undefined = self.call("qjs_get_undefined")
        entries = self.call("qjs_call", self.evaluate(driver), undefined, 1, arguments)
        self._check(entries)
        handles = {"undefined": undefined, "true": self.call("qjs_get_true"), "false": self.call("qjs_get_false")}
        for index, name in enumerate(ENTRIES):
            handles[name] = self.call("qjs_get_prop_uint32", entries, index)
        return handles

    def install(self, parts: str, install: int) -> None:
        """Load the parts of the Web API."""
        arguments = self.put(struct.pack("<I", self.evaluate(parts)))
        self._check(self.call("qjs_call", install, self.call("qjs_get_undefined"), 1, arguments))

    def random_state(self) -> int:
        """Find the state of ``Math.random``: every run gets its own, or all would draw the same numbers.

        It is the one place of the context that a draw moves on by a step of xorshift64*
        (https://en.wikipedia.org/wiki/Xorshift#xorshift*).
        """
        context, size = self.call("qjs_get_context_ptr"), 4 * KiB
        before = self.read(context, size)
        self.evaluate("Math.random()")
        after = self.read(context, size)
        found = [
            at
            for at in range(0, size - 7, 4)
            if (old := int.from_bytes(before[at : at + 8], "little"))
            and _xorshift(old) == int.from_bytes(after[at : at + 8], "little")
        ]
        if len(found) != 1:
            raise SpawnFailed("the state of Math.random is not where it was looked for", "images")
        return int(context) + found[0]

    def _check(self, value: int) -> None:
        if self.call("qjs_is_exception", value):
            error = self.call("qjs_get_exception")
            stack = self.text(self.call("qjs_get_prop_string", error, self.put(b"stack")))
            raise SpawnFailed(f"the driver does not load: {self.text(error)}\n{stack}", "images")


def _xorshift(state: int) -> int:
    state ^= state >> 12
    state ^= (state << 25) & 0xFFFFFFFFFFFFFFFF
    return state ^ (state >> 27)
