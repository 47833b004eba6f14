"""User ids for sandbox children: none is shared by two that live."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from runvisor.policies.errors import SpawnFailed


class Uids:
    """Uids for the children of this process: none is shared by two that live.

    A distinct uid keeps RLIMIT_NPROC, signals and ptrace of one execution
    apart from every other's, pid namespaces aside.
    """

    PER_PROCESS = 256
    """How many children a process may have at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: set[int] = set()

    def take(self) -> int:
        """Return an id that no living child of this process has.

        Raises:
            SpawnFailed: All are taken.
        """
        with self._lock:
            number = next((n for n in range(self.PER_PROCESS) if n not in self._used), None)
            if number is None:
                raise SpawnFailed(f"this process already has {self.PER_PROCESS} sandbox children", "", "use more pools")
            self._used.add(number)
        return self._base() + number

    def give_back(self, uid: int) -> None:
        """Free the id of a child that has ended; harmless when it is free."""
        with self._lock:
            self._used.discard(uid - self._base())

    def _base(self) -> int:
        first = 0x60000000 + (os.getpid() & 0x3FFFFF) * self.PER_PROCESS
        mapped = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
        if any(inside <= first and first + self.PER_PROCESS <= inside + count for inside, _, count in mapped):
            return first
        return 61000  # a user namespace that maps only the classic 16-bit range


UIDS: Final = Uids()
"""The ids of this process."""
