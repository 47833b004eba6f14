"""Record programs in an engine process: chunks of records through one instance that keeps the state.

Of a program that collects, the marks and the outputs of a chunk are zeroed in the
instance before it runs and copied to the window behind it, outputs first.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from typing import Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm.agreement import CHUNK, MIN_STATE_BYTES, OPEN, WINDOW_BYTES
from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.engines import AnyStore
from runvisor.actors.wasm.fastpath import Memory, Stopped
from runvisor.actors.wasm.modules import CompiledModule
from runvisor.actors.wasm.profiles import MAX_MEMORY_BYTES, TABLE_ELEMENTS, TABLES
from runvisor.actors.wasm.run import explain
from runvisor.policies.errors import MemoryLimitExceeded, ProtocolError, RunvisorError

_SLOT: Final = struct.Struct("<Q8x")


class Window:
    """The engine's end of a lane's shared memory: records come in by it, what is collected goes out."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: mmap.mmap | None = None
        self._address = 0

    def address(self) -> int:
        """Return where it is mapped; mapped when first used."""
        if self._map is None:
            self._map = mmap.mmap(self._fd, WINDOW_BYTES)
            self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        return self._address

    def close(self) -> None:
        """Close the descriptor; the mapping ends with the process."""
        os.close(self._fd)


class RecordSession:
    """One execution of a record program.

    Args:
        deadlines: The process's.
        store: Fresh, without limits yet; owned from here on.
        module: A compiled harness with its program.
        window: The lane's.
        message: The first ``records`` request.
    """

    def __init__(
        self, deadlines: Deadlines, store: AnyStore, module: CompiledModule, window: Window, message: Message
    ) -> None:
        self._deadlines = deadlines
        self._store = store
        self._module = module
        self._window = window
        self._timeout_s: float = message["timeout_s"]
        self._record_bytes: int = message["record_bytes"]
        self._state: bytes = message["state"]
        self._collects: bool = message["collects"]
        self._output_bytes: int = message["output_bytes"]
        self._state_at = 0
        self._records_at = self._collected_at = 0
        store.limit(min(message["memory_bytes"], MAX_MEMORY_BYTES), TABLE_ELEMENTS, TABLES)
        deadlines.begin(store.token, self._timeout_s)

    def reply(self, message: Message) -> Message:
        """Run the program on the records that lie in the window."""
        count: int = message["count"]
        try:
            if not self._state_at:
                self._open()
            size = count * self._record_bytes
            if not 0 <= size <= WINDOW_BYTES:
                raise ProtocolError(f"{count} records do not fit the window")
            if size:
                self._memory().copy_in(self._records_at, self._window.address(), size)
            reply: Message = {"selected": self._run(count)}
            if message["is_last"]:
                reply["state"] = self._memory().read(self._state_at, len(self._state))
            return reply
        except Stopped as stopped:
            return {"error": explain(stopped, self._deadlines, self._store.token, self._timeout_s).to_wire()}
        except RunvisorError as error:
            return {"error": error.to_wire()}

    def close(self) -> None:
        """End it and delete the instance; closing twice is fine."""
        self._deadlines.end(self._store.token)
        self._store.close()

    def _open(self) -> None:
        """Make the instance, with the state and the room for records behind all that it begins with."""
        self._store.instantiate(self._module.pre)
        room = -(-max(len(self._state), MIN_STATE_BYTES) // MIN_STATE_BYTES) * MIN_STATE_BYTES
        base = self._call(OPEN, room + WINDOW_BYTES * (2 if self._collects else 1))
        if not base:
            raise MemoryLimitExceeded("there is no room for the state and the records", "memory_bytes")
        self._memory().write(base, self._state)
        self._state_at, self._records_at = base, base + room
        self._collected_at = base + room + WINDOW_BYTES

    def _run(self, count: int) -> int:
        """Pass so many records through the function, and copy out what it collects."""
        if not self._collects:
            return self._call(CHUNK, self._records_at, self._state_at, count)
        outputs, marks = self._collected_at, self._collected_at + count * self._output_bytes
        size = count * (self._output_bytes + 1)
        if not 0 <= size <= WINDOW_BYTES:
            raise ProtocolError(f"the outputs of {count} records do not fit the window")
        self._memory().zero(outputs, size)
        selected = self._call(CHUNK, self._records_at, self._state_at, count, marks, outputs)
        self._memory().copy_out(outputs, self._window.address(), size)
        return selected

    def _call(self, name: str, *arguments: int) -> int:
        function = self._module.functions[name]
        raw = b"".join(map(_SLOT.pack, arguments))
        if len(raw) != function.argument_bytes:
            raise ProtocolError(f"{name} is not the harness's")
        (result,) = _SLOT.unpack(self._store.call(function.name, raw, function.slots, function.result_bytes))
        return int(result)

    def _memory(self) -> Memory:
        memory = self._store.memory()
        if memory is None:
            raise ProtocolError("the harness exports no memory")
        return memory
