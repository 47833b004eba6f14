"""One program in one fresh interpreter: from its text to the driver's report.

The interpreter is the image's, and the program may have turned it upside down:
what comes out of its memory are bytes, read within bounds and believed nothing.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.fastpath import Found, Memory, OutOfBounds, Store
from runvisor.actors.wasm.images.manifest import Fact
from runvisor.actors.wasm.images.quickjs.script import LENGTH_AT, NAME
from runvisor.policies.javascript import forms

_WORD: Final = struct.Struct("<I")
_MODULE, _STRICT, _AWAIT = 1, 1 << 3, 1 << 7
"""Flags of ``qjs_eval``: ``JS_EVAL_TYPE_MODULE``, ``JS_EVAL_FLAG_STRICT``, ``JS_EVAL_FLAG_ASYNC``."""
_EXPORTS: Final = re.compile(r"(?<![\w.$])(?:export|import)\b(?!\s*\()")
_WORDS: Final = [struct.Struct(f"<{count}I") for count in range(4)]
_SCRIPT: Final = NAME.encode()


class Broken(Exception):
    """The interpreter gave no report: it had no memory left for it, or its driver is gone."""


class Interpreter:
    """The interpreter in a store whose instance was just made from the image.

    Args:
        store: With the instance.
        facts: The image's: where in its memory is what.
        deadlines: Ends a wait for a timer when the run's time is over.
    """

    def __init__(self, store: Store, facts: Mapping[str, Fact], deadlines: Deadlines) -> None:
        self._store = store
        self._facts = facts
        self._deadlines = deadlines
        self._words = int(facts["words_at"])
        self._undefined = int(facts["undefined"])
        self._found: dict[bytes, Found] = {}
        self._known_memory: Memory | None = None

    def warm(self) -> None:
        """Find what nearly every program needs, before there is one."""
        self._found[_SCRIPT] = self._store.find(_SCRIPT)
        self._memory(0)

    def seed(self, state: bytes) -> None:
        """Set where ``Math.random`` begins: 8 bytes, not all zero."""
        self._write(int(self._facts["random_at"]), state)

    def take_inputs(self, text: str, token: str, buffers: Sequence[bytes | memoryview]) -> None:
        """Hand over the inputs: JSON text, the key that marks what JSON cannot say or "", the buffers beside it."""
        for buffer in buffers:
            at = self._put(bytes(buffer))
            self._drive("add_buffer", self._call(b"qjs_new_array_buffer", at, len(buffer)))
            self._call(b"wasm_free", at)
        self._drive("begin", self._text(text), self._text(token))

    def report(self, code: str) -> dict[str, Any]:
        """Run a program to its end and return what the driver says of it.

        Raises:
            Broken: It says nothing, or no sense.
            Stopped: It was ended.
        """
        at, size = self._put_code(forms.visible_main(code))
        if not forms.is_surely_module(code):
            told = self._call(_SCRIPT, at, size, self._flag(forms.calls_main(code)))
            if told:
                return self._wait(told)
            self._drive("fail", self._exception(_WORD.unpack(self._memory(self._words + 4).read(self._words, 4))[0]))
            report = self._wait()
            if not (is_unparsed(report["outcome"]) and forms.may_be_module(code)):
                return report
        is_module = bool(_EXPORTS.search(code))
        value, is_exception = self._evaluate(at, size, _MODULE if is_module else _AWAIT | _STRICT)
        if is_exception:
            self._drive("fail", value)
        elif is_module:
            self._drive("finish_module", value, self._flag(forms.calls_main(code)))
        else:
            self._drive("finish_script", value, self._flag(forms.calls_main(code)), self._flag(True))
        return self._wait()

    def next_buffer(self) -> bytes:
        """Return the next of the buffers that stand beside the value."""
        handle = self._drive("leaf")
        at = self._call(b"qjs_get_array_buffer", handle, self._words + LENGTH_AT)
        return self._read(at)

    def _wait(self, told: int = 0) -> dict[str, Any]:
        """Let promises and timers go on until the driver has its report; `told` is where it has told already."""
        while True:
            if not told:
                while self._call(b"qjs_execute_pending_job"):
                    pass
                told = self._call(b"qjs_get_string_len", self._drive("tell"), self._words + LENGTH_AT)
            text, told = self._read(told), 0
            if text[:1] == b"{":
                return self._parsed(text)
            if text[:1] in _ALONE:
                return _value(text)
            if not text:
                what = "Error: the program waits for a promise that nothing will settle"
                return {"token": "", "outcome": {"kind": "error", "what": what, "stack": "", "syntax": False}}
            self._sleep(text)
            self._drive("tick")

    def _sleep(self, text: bytes) -> None:
        try:
            seconds = max(0.0, float(text) / 1000)
        except ValueError:
            raise Broken from None
        token = self._store.token
        self._deadlines.sleep(token, min(seconds, self._deadlines.left_s(token)))
        # A run whose time is over, or that was called off, is ended by the next call into it.

    def _parsed(self, text: bytes) -> dict[str, Any]:
        try:
            report = json.loads(text)
        except (ValueError, RecursionError):
            raise Broken from None
        if not isinstance(report, dict) or not isinstance(report.get("outcome"), dict):
            raise Broken
        return report

    def _evaluate(self, at: int, size: int, flags: int) -> tuple[int, bool]:
        """Evaluate code, and return the handle of its value, or of the exception and True."""
        value = self._call(b"qjs_eval", at, size, int(self._facts["filename_at"]), flags)
        if self._call(b"qjs_is_exception", value):
            return self._call(b"qjs_get_exception"), True
        return value, False

    def _exception(self, value: int) -> int:
        """Return the handle of the exception that a value stands for.

        Raises:
            Broken: It stands for none.
        """
        if not self._call(b"qjs_is_exception", value):
            raise Broken
        return self._call(b"qjs_get_exception")

    def _drive(self, entry: str, *arguments: int) -> int:
        """Call a function of the driver."""
        if arguments:
            self._write(self._words, _WORDS[len(arguments)].pack(*arguments))
        return self._call(b"qjs_call", int(self._facts[entry]), self._undefined, len(arguments), self._words)

    def _flag(self, value: bool) -> int:
        return int(self._facts["true" if value else "false"])

    def _text(self, text: str) -> int:
        data = text.encode("utf-8", "surrogatepass")
        at = self._put(data)
        handle = self._call(b"qjs_new_string", at, len(data))
        self._call(b"wasm_free", at)
        return handle

    def _put_code(self, code: str) -> tuple[int, int]:
        data = code.encode("utf-8", "surrogatepass")
        if len(data) < int(self._facts["scratch_bytes"]):
            at = int(self._facts["scratch_at"])
            self._write(at, data + b"\0")
            return at, len(data)
        return self._put(data), len(data)

    def _put(self, data: bytes) -> int:
        at = self._call(b"wasm_malloc", len(data) + 1)
        if not at:
            raise Broken
        self._write(at, data + b"\0")
        return at

    def _read(self, at: int) -> bytes:
        """Read what lies at an address, of the length that was written to the words."""
        words = self._words + LENGTH_AT
        try:
            (size,) = _WORD.unpack(self._memory(words + 4).read(words, 4))
            if not at and size:
                raise Broken
            return self._memory(at + size).read(at, size)
        except OutOfBounds:
            raise Broken from None

    def _write(self, at: int, data: bytes) -> None:
        self._memory(at + len(data)).write(at, data)

    def _memory(self, end: int) -> Memory:
        """Return the memory as it was when it was last looked at, unless that was shorter than this."""
        memory = self._known_memory
        if memory is None or end > memory.size:
            memory = self._known_memory = self._store.memory()
            if memory is None:
                raise Broken
        return memory

    def _call(self, name: bytes, *arguments: int) -> int:
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = self._store.find(name)
        return self._store.call_found(found, *arguments)


_ALONE: Final = (b"T", b"U", b"V")
"""What a report begins with that is a value alone: text as it is, or JSON."""


def _value(report: bytes) -> dict[str, Any]:
    try:
        value = report[1:].decode("utf-8", "surrogatepass") if report[:1] == b"T" else json.loads(report[1:])
    except (ValueError, RecursionError):
        raise Broken from None
    return {"token": "", "outcome": {"kind": "value", "leaves": 0, "json": value}}


_UNPARSED: Final = re.compile(r"\s*at task\.js:(\d+):(\d+)\s*")
_PLACE: Final = re.compile(r"task\.js:(\d+):(\d+)")
_TOP: Final = re.compile(r"^(\s*at )<eval> \((task\.js:\d+:\d+)\)$")


def is_unparsed(outcome: Mapping[str, Any]) -> bool:
    """Say whether an outcome is a syntax error of the code itself, so that none of it ran."""
    return bool(outcome.get("syntax")) and bool(_UNPARSED.fullmatch(str(outcome.get("stack", ""))))


def place_of(stack: str) -> tuple[str, str]:
    r"""Return the place of an error as ``line:column``, and the frames of the task's own code.

    Example:
        >>> place_of("    at f (task.js:1:14)\n    at sort (native)\n    at <eval> (task.js:2:3)\n")
        ('1:14', '    at f (task.js:1:14)\n    at task.js:2:3')
    """
    frames = [_TOP.sub(r"\1\2", line) for line in stack.splitlines() if _PLACE.search(line)]
    first = _PLACE.search(frames[0]) if frames else None
    return (f"{first[1]}:{first[2]}" if first else ""), "\n".join(frames)
