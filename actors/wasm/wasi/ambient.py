"""What a run learns of the world outside by clocks and chance, behind one object that can be replaced."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

REALTIME, MONOTONIC, PROCESS_CPU, THREAD_CPU = 0, 1, 2, 3
"""The clocks of preview 1."""


class Ambient(Protocol):
    """Where clocks and random bytes come from; shared by runs, so without state of any one of them."""

    def now_ns(self, clock: int) -> int:
        """Return what a clock says.

        Raises:
            KeyError: There is no such clock.
        """
        ...

    def resolution_ns(self, clock: int) -> int:
        """Return the smallest step of a clock.

        Raises:
            KeyError: There is no such clock.
        """
        ...

    def random_bytes(self, size: int) -> bytes:
        """Return unpredictable bytes, or what stands for them."""
        ...

    def may_sleep(self) -> bool:
        """Say whether a wait for a clock takes real time."""
        ...


_CLOCKS: Final[Mapping[int, tuple[Callable[[], int], int]]] = {
    REALTIME: (time.time_ns, time.CLOCK_REALTIME),
    MONOTONIC: (time.monotonic_ns, time.CLOCK_MONOTONIC),
    PROCESS_CPU: (time.thread_time_ns, time.CLOCK_THREAD_CPUTIME_ID),  # all CPU time of a run is that of its thread
    THREAD_CPU: (time.thread_time_ns, time.CLOCK_THREAD_CPUTIME_ID),
}


class HostAmbient:
    """The machine's own clocks and the kernel's random bytes.

    Example:
        >>> HOST.now_ns(MONOTONIC) > 0, len(HOST.random_bytes(8))
        (True, 8)
    """

    def now_ns(self, clock: int) -> int:
        """See `Ambient.now_ns`."""
        return _CLOCKS[clock][0]()

    def resolution_ns(self, clock: int) -> int:
        """See `Ambient.resolution_ns`."""
        return max(1, int(time.clock_getres(_CLOCKS[clock][1]) * 1e9))

    def random_bytes(self, size: int) -> bytes:
        """See `Ambient.random_bytes`."""
        return os.urandom(size)

    def may_sleep(self) -> bool:
        """See `Ambient.may_sleep`."""
        return True


HOST: Final = HostAmbient()
