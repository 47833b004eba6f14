"""Which Ray clusters of this user run on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_NODE: Final = b"raylet"
"""The process that each node of a cluster has."""
_ADDRESS: Final = b"--gcs-address="


def own_clusters(processes: Path = Path("/proc")) -> tuple[str, ...]:
    """Return the addresses of the clusters whose node here runs as this process's own user.

    Ray's own "auto" takes whichever node it finds, also another user's.

    Args:
        processes: What proc(5) is mounted on.

    Example:
        >>> own_clusters(Path("/nonexistent"))
        ()
    """
    found: set[str] = set()
    for process in processes.glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            is_own = process.stat().st_uid == os.geteuid()
        except OSError:  # it has just ended, or is hidden from us
            continue
        if is_own and arguments[0].rpartition(b"/")[2] == _NODE:
            found |= {each.removeprefix(_ADDRESS).decode() for each in arguments if each.startswith(_ADDRESS)}
    return tuple(sorted(found))
