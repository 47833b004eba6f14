"""The audit log of one process: an append-only file of chained records."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runvisor.policies.audit import GENESIS, Event, Kind, seal


class AuditLog:
    """Appends sealed records to one file, 0600.

    A record is handed to the kernel before `append` returns: it outlives this
    process, though not a power cut.

    Args:
        path: The file; it must not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._head = GENESIS
        self._count = 0

    def append(self, kind: Kind, action: str, principal: str, details: Mapping[str, Any]) -> None:
        """Seal one event onto the chain.

        Raises:
            OSError: It could not be written; what it was to precede must not happen.
        """
        event = Event(kind, action, principal, time.time(), details)
        with self._lock:
            line, head = seal(event, self._head, self._count)
            os.write(self._fd, line.encode() + b"\n")
            self._head = head
            self._count += 1

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
