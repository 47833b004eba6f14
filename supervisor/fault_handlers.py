"""Who hears of a fault of this process: an engine that turns faults into errors must stay the first to hear.

Wasmtime runs on signals: a trap of a module is a SIGILL or SIGSEGV that its handler
takes back. Ray, when it starts, puts handlers before it that report a crash and end
the process. See sigaction(2).
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_FAULTS: Final = (signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGTRAP)
_ACTION_BYTES: Final = 256
"""More than a ``struct sigaction`` has anywhere; its first word is the handler."""
_DEFAULT: Final = bytes(ctypes.sizeof(ctypes.c_void_p))
_sigaction: Final = ctypes.CDLL(None).sigaction
_sigaction.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


@contextmanager
def kept_fault_handlers() -> Iterator[None]:
    """Put back, after the block, the handlers of faults that there were before it; where there were none, leave it."""
    before = {fault: ctypes.create_string_buffer(_ACTION_BYTES) for fault in _FAULTS}
    for fault, action in before.items():
        _sigaction(fault, None, action)
    try:
        yield
    finally:
        for fault, action in before.items():
            if action.raw[: len(_DEFAULT)] != _DEFAULT:
                _sigaction(fault, action, None)
