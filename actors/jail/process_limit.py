"""The memory bound of one process, for machines that let this user make no cgroup.

A jailed guest cannot fork, so a bound on its one process bounds the execution.
Shared mappings escape RLIMIT_DATA; the guest's address space limit covers those.
See setrlimit(2), prlimit(2) and proc(5).
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import Final

from runvisor.actors.jail.limits import PAGE_BYTES
from runvisor.policies.permissions import MiB

_KIB: Final = 1024


class ProcessLimit:
    """Bounds and measures the memory of one child, as a cgroup slot would.

    Args:
        pid: The child, as this process sees it.
    """

    can_rise = False
    slack_bytes = 48 * MiB
    """More than for a cgroup, since all that is reserved counts here: a garbage collector reserves ahead."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._resident_bytes = 0

    def limit_memory(self, limit_bytes: int, *, final: bool) -> None:
        """Bound what is private and writable; a limit that is not final is none yet, since it could not rise."""
        if final:
            resource.prlimit(self._pid, resource.RLIMIT_DATA, (limit_bytes, limit_bytes))

    def current_bytes(self) -> int:
        """Return what counts against the limit now."""
        _, resident, _, _, _, data, _ = map(int, Path(f"/proc/{self._pid}/statm").read_text().split())
        self._resident_bytes = (resident - data) * PAGE_BYTES
        return data * PAGE_BYTES

    def peak_bytes(self) -> int | None:
        """Return the highest resident size, on the scale of `current_bytes`; None once it has ended.

        Pages that it shares with others count as well: nothing tells them apart later.
        """
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * _KIB - self._resident_bytes
        return None

    def peak_at_end(self, resident_bytes: int) -> int:
        """Return the highest resident size of one that has ended, on the same scale."""
        return resident_bytes - self._resident_bytes

    def close(self) -> None:
        """Nothing to give back."""
