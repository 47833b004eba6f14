"""Runs inside the component: one task, from its request to its reply.

Hostile code shares the instance with all of this, and nobody trusts a word of
the reply. `prepare` runs while the image is built: what it imports is part of
the image, and nothing else can be imported afterwards, for there are no files.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import importlib
import io
import json
import os
import sys
import time
import types
import warnings
from collections.abc import Callable
from typing import Any, Final, SupportsIndex

from runvisor.actors.python import plain, remedies, source, tracebacks
from runvisor.actors.python.coroutines import Coroutines
from runvisor.actors.wasm.cpython.messages import json_text
from runvisor.policies.errors import GuestSyntaxError, UnserializableValue
from runvisor.policies.portable.modules import IMAGE_MODULES
from runvisor.policies.values import unpack

_AT_ONCE: Final = 64
_BLOCK: Final = 8192
_MAX_SLEEP_S: Final = 1e9
_REMEDY: Final = (
    "this Python has of the standard library {}; without instructions and deterministic, a task may run on "
    "python/native, which has more"
)

Print = Callable[[int, str], None]
Sleep = Callable[[float], None]


class _Stream(io.TextIOBase):
    """stdout or stderr: the first lines leave at once, those after them in blocks."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, number: int, send: Print) -> None:
        self._number = number
        self._send = send
        self._waiting: list[str] = []
        self._size = 0
        self._lines = 0

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, text: str, /) -> int:
        """Take text, and send it on when it is time."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._waiting.append(text)
        self._size += len(text)
        if self._size >= _BLOCK or (self._lines < _AT_ONCE and "\n" in text):
            self._lines += 1
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Send on what waits."""
        text, self._waiting, self._size = "".join(self._waiting), [], 0
        if text:
            self._send(self._number, text.encode("utf-8", "replace").decode())


class _NoCoroutines(Coroutines):
    """There is no event loop: it would wait for sockets."""

    def run(self, coroutine: Any) -> Any:
        """Refuse it."""
        coroutine.close()
        raise RuntimeError("await needs an event loop, which this interpreter does not have; use plain functions")


class Interpreter:
    """Runs one task: the instance around it is as fresh as the image.

    Args:
        send: Prints.
        sleep: Waits for seconds.
    """

    def __init__(self, send: Print, sleep: Sleep) -> None:
        self._send = send
        self._sleep = sleep
        self._has = ""

    def prepare(self) -> None:
        """Load the standard library, and walk the path of a task once, so that its pages lie in the image."""
        for name in IMAGE_MODULES:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        self._has = ", ".join(name for name in IMAGE_MODULES if name in sys.modules and "." not in name)
        tracebacks.note_libraries()
        time.sleep = self._pause
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", SyntaxWarning)
        streams = sys.stdin, sys.stdout, sys.stderr
        for code in _REHEARSALS:
            self.run(json.dumps({"code": code, "label": "", "inputs": {"x": [1, "text", None]}, "env": {}}))
        sys.stdin, sys.stdout, sys.stderr = streams
        sys.modules.pop("__main__", None)
        gc.collect()
        gc.freeze()

    def run(self, text: str) -> str:
        """Run one task.

        Args:
            text: The request, see `runvisor.actors.wasm.cpython.messages`.

        Returns:
            The reply.
        """
        request = json.loads(text)
        os.environ.update(request["env"])
        sys.stdin = io.StringIO()
        sys.stdout = out = _Stream(1, self._send)
        sys.stderr = err = _Stream(2, self._send)
        reply = self._answer(request)
        for stream in (out, err):
            with contextlib.suppress(Exception):
                stream.flush()
        return json.dumps(reply)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        filename = f"<{request['label'] or 'task'}>"
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        try:
            program = source.parse(request["code"], filename)
            inputs = unpack(base64.b64decode(request["packed"])) if "packed" in request else request["inputs"]
            return _leave(source.run(program, module.__dict__, inputs, _NoCoroutines()).value)
        except (GuestSyntaxError, UnserializableValue) as error:
            said = {"what": error.what, "where": error.where, "remedy": error.remedy}
            return {"type": type(error).__name__, **said, **error.details}
        except MemoryError:
            return {"type": "MemoryLimitExceeded", "what": "MemoryError"}
        except SystemExit as error:
            if error.code in (None, 0):
                return {"value": None}
            return {"type": "GuestException", "what": f"SystemExit: {error.code}", "where": filename}
        except BaseException as error:
            said = tracebacks.describe(error, filename.__eq__)
            return {"type": "GuestException", **said, "remedy": self._remedy(error)}

    def _remedy(self, error: BaseException) -> str:
        if isinstance(error, ModuleNotFoundError):
            return _REMEDY.format(self._has)
        return remedies.remedy_for(error, {})

    def _pause(self, seconds: float | SupportsIndex, /) -> None:
        """Stand in for ``time.sleep``."""
        if not 0 <= float(seconds) <= _MAX_SLEEP_S:
            raise ValueError("sleep length must be non-negative")
        self._sleep(float(seconds))


def _leave(value: Any) -> dict[str, Any]:
    if json_text(value) is not None:
        return {"value": value}
    return {"packed": base64.b64encode(plain.packed(value)).decode()}


_REHEARSALS: Final = (
    "import math\nclass A:\n    x = 1\ndef double(x):\n    return x * 2\ntotal = [double(i) for i in range(3)]\n"
    "f'{total} {math.pi:.3f}'\ntotal",
    "{1: 2}",
    "1 / 0",
    "def main(x):\n    return x",
)
