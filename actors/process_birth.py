"""What tells a process from every other that has, or had, its number. See proc_pid_stat(5)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = Path("/proc/self/ns/pid")
_START_TIME: Final = 19
"""Place of the start time behind the process's name, in clock ticks since the boot."""


def process_birth(pid: int) -> str:
    """Return the machine's boot, the pid namespace and the start of a process; empty if there is none.

    Args:
        pid: In this process's own pid namespace.

    Example:
        >>> import os
        >>> process_birth(os.getpid()) == process_birth(os.getpid()) != process_birth(1)
        True
        >>> process_birth(1 << 22)
        ''
    """
    try:
        started = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[_START_TIME]
        return f"{_BOOT.read_text().strip()} {_NAMESPACE.readlink()} {started}"
    except (OSError, IndexError):
        return ""
