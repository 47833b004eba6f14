"""Stop a process for good: the signal alone takes hold of its threads one after the other."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

_TIMEOUT_S = 10.0


def stop(pid: int) -> None:
    """Send SIGSTOP and wait until /proc shows every task of the process stopped; see proc(5)."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _TIMEOUT_S
    while (states := _states(pid)) != {"T"}:
        assert time.monotonic() < deadline, f"the tasks of {pid} are {states}, not all stopped"
        time.sleep(0.001)


def _states(pid: int) -> set[str]:
    """Return the states of its tasks; the name before the state may hold anything."""
    return {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()}
