"""Inside the jail: say that memory ran out where the isolate's thread can no longer say it.

Where a limit of the process itself bounds memory, not a cgroup, V8 is refused
what it asks for. Often it throws, or ends the process; but a call from it into
Python may also fail before a line of it runs, and then no answer ever comes.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable
from typing import Final

from runvisor.actors.jail import limits
from runvisor.policies.permissions import MiB

_INTERVAL_S: Final = 0.05
_NEAR_BYTES: Final = MiB
"""So close to the bound, something has been refused or is about to be; the slack is used up long before."""


def watch_private_memory(on_exhausted: Callable[[], None]) -> None:
    """Call a function, once and from another thread, when the bound on this process's private memory is reached.

    Nothing is started where there is no such bound. A reserve is set aside, and
    given free before the call: whoever answers needs room too.
    """
    soft = limits.keep_reserve()
    if soft != resource.RLIM_INFINITY:
        statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        threading.Thread(target=_watch, args=(statm, soft, on_exhausted), daemon=True).start()


def _watch(statm: int, bound_bytes: int, on_exhausted: Callable[[], None]) -> None:
    try:
        while _private_bytes(statm) < bound_bytes - _NEAR_BYTES:
            time.sleep(_INTERVAL_S)
    except MemoryError:
        pass
    limits.use_reserve()
    on_exhausted()


def _private_bytes(statm: int) -> int:
    """Return what counts; see proc(5)."""
    return int(os.pread(statm, 200, 0).split()[5]) * limits.PAGE_BYTES
