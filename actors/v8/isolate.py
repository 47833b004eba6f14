"""One V8 isolate through mini-racer's C interface, without its Python objects.

Its event loop and object handles cost a thread, six switches per evaluation,
and hang on hostile objects. Here the isolate's thread delivers each result
straight to a queue, and calls of the task come to a function on that same
thread, which must touch the isolate no further.

The functions of the library are those of ``mini_racer.cc``
(https://github.com/bpcreech/PyMiniRacer).
"""

from __future__ import annotations

import ctypes
import itertools
import queue
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from py_mini_racer import DEFAULT_V8_FLAGS, init_mini_racer
from py_mini_racer._dll import MR_CALLBACK

_HOST_CALL: Final = 1
_FIRST_EVALUATION: Final = 2
_INTEGER, _STRING = 3, 5


class Ending(Enum):
    """Why an evaluation gave no value."""

    EXCEPTION = 200
    SYNTAX = 201
    MEMORY = 202
    TIMEOUT = 203
    TERMINATED = 204


@dataclass(frozen=True, slots=True)
class Failure:
    """An evaluation without a value."""

    ending: Ending
    text: str


@dataclass(frozen=True, slots=True)
class Buffer:
    """The memory of an ArrayBuffer; it stays valid while the isolate holds the buffer."""

    address: int
    nbytes: int

    def read(self, nbytes: int | None = None) -> bytes:
        """Return a copy of its first bytes; all of them by default."""
        return ctypes.string_at(self.address, self.nbytes if nbytes is None else nbytes)

    def write(self, data: bytes | memoryview, offset: int = 0) -> None:
        """Copy bytes into it.

        Raises:
            ValueError: They do not fit.
        """
        if offset + len(data) > self.nbytes:
            raise ValueError(f"{len(data)} bytes do not fit into {self.nbytes}")
        if isinstance(data, memoryview):
            data = data.cast("B")
            source = (ctypes.c_char * len(data)).from_buffer_copy(data) if data.readonly else None
            if source is None:
                ctypes.memmove(self.address + offset, (ctypes.c_char * len(data)).from_buffer(data), len(data))
                return
            ctypes.memmove(self.address + offset, source, len(data))
            return
        ctypes.memmove(self.address + offset, data, len(data))


@dataclass(frozen=True, slots=True)
class Handle:
    """An object of the isolate, for the isolate's own functions only."""

    raw: Any


JsValue = None | bool | int | float | str | Buffer | Failure | Handle


def load_library(flags: Iterable[str]) -> None:
    """Load and initialise V8 in this process; a fork is safe until the first `Isolate`."""
    init_mini_racer(flags=[*DEFAULT_V8_FLAGS, *flags])


class Isolate:
    """A V8 isolate with one context, on a thread of its own.

    Evaluations run one after another. There is no way to close it: a process
    that has one ends with ``os._exit``.

    Args:
        on_call: What the function that `host_function` returns calls. It runs on the
            isolate's thread, while the task waits, and must not evaluate anything.
    """

    def __init__(self, on_call: Callable[[], None]) -> None:
        self._library = init_mini_racer(ignore_duplicate_init=True)
        self._on_call = on_call
        self._numbers = itertools.count(_FIRST_EVALUATION)
        self._deliveries: dict[int, Callable[[JsValue | bytes], None]] = {}
        self._callback = MR_CALLBACK(self._called)  # kept: the library holds only its address
        self._context = self._library.mr_init_context(self._callback)

    def host_function(self) -> Handle:
        """Return a function of the isolate that calls ``on_call``."""
        return Handle(self._library.mr_make_js_callback(self._context, _HOST_CALL))

    def evaluate(self, code: str) -> JsValue:
        """Run a script and wait for its value."""
        arrived: queue.SimpleQueue[JsValue | bytes] = queue.SimpleQueue()
        number = next(self._numbers)
        self._deliveries[number] = arrived.put
        text = self._string(code)
        self._library.mr_eval(self._context, text, number)
        self._free(text)
        return _decoded(arrived.get())

    def call(self, function: Handle) -> JsValue:
        """Call a function without arguments and wait for its value."""
        arrived: queue.SimpleQueue[JsValue | bytes] = queue.SimpleQueue()
        self.start(function, arrived.put)
        return _decoded(arrived.get())

    def start(self, function: Handle, deliver: Callable[[JsValue | bytes], None], text: str = "") -> int:
        """Call a function without arguments; its value is delivered on the isolate's thread.

        A string is delivered as its bytes in UTF-8, with lone surrogates as three
        bytes each. What delivers may wait there, and `start` more; nothing else
        of this class.

        Args:
            function: What to call.
            deliver: Takes the value.
            text: What the function finds as its ``this``, if it is a strict one.

        Returns:
            A number for `cancel`.
        """
        number = next(self._numbers)
        self._deliveries[number] = deliver
        this = self._string(text)
        task = self._library.mr_call_function(self._context, function.raw, this, self._no_arguments.raw, number)
        self._free(this)
        return int(task)

    def cancel(self, task: int) -> None:
        """End what `start` began; it is delivered as `Ending.TERMINATED`, if it still ran."""
        self._library.mr_cancel_task(self._context, task)

    def set(self, target: Handle, name: str | int, value: Handle) -> None:
        """Set a property of an object that no task has touched."""
        key = self._string(name) if isinstance(name, str) else self._integer(name)
        self._free(self._library.mr_set_object_item(self._context, target.raw, key, value.raw))
        self._free(key)

    def limit_heap(self, limit_bytes: int) -> None:
        """End the running evaluation as `Ending.MEMORY` when the heap grows beyond this."""
        self._library.mr_set_hard_memory_limit(self._context, limit_bytes)

    @property
    def _no_arguments(self) -> Handle:
        handle = self.__dict__.get("_empty")
        if handle is None:
            handle = self.__dict__["_empty"] = self.evaluate("[]")
        assert isinstance(handle, Handle)
        return handle

    def _string(self, text: str) -> Any:
        data = text.encode()
        return self._library.mr_alloc_string_val(self._context, data, len(data), _STRING)

    def _integer(self, value: int) -> Any:
        return self._library.mr_alloc_int_val(self._context, value, _INTEGER)

    def _free(self, raw: Any) -> None:
        self._library.mr_free_value(self._context, raw)

    def _called(self, number: int, raw: Any) -> None:
        """Take what the isolate's thread says: a call of a task, or the value of an evaluation."""
        if number == _HOST_CALL:
            self._free(raw)
            self._on_call()
            return
        deliver = self._deliveries.pop(number, None)
        value = self._value(raw)
        if deliver is not None:
            deliver(value)

    def _value(self, raw: Any) -> JsValue | bytes:
        content = raw.contents
        kind, size = content.type, content.len
        if kind in (10, 6, 100, 103, 9, 7):
            return Handle(raw)
        if kind in (101, 102):  # the handle is kept, and the memory with it
            return Buffer(content.value.value_ptr, size)
        value: JsValue | bytes = None
        if kind == 2:
            value = content.value.int_val == 1
        elif kind == _INTEGER:
            value = int(content.value.int_val)
        elif kind in (4, 8):
            value = float(content.value.double_val)
        elif kind == _STRING:
            value = ctypes.string_at(content.value.bytes_val, size)
        elif kind >= 200:
            text = ctypes.string_at(content.value.bytes_val, size).decode(errors="replace")
            value = Failure(Ending(kind) if kind <= 204 else Ending.EXCEPTION, text)
        self._free(raw)
        return value


def _decoded(value: JsValue | bytes) -> JsValue:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
