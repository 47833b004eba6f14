"""Where one user's processes keep what is made once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder for what is built once: ``$RUNVISOR_CACHE``, else ``~/.cache/runvisor``."""
    override = os.environ.get("RUNVISOR_CACHE")
    return Path(override) if override else Path.home() / ".cache" / "runvisor"
