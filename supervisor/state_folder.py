"""Where this user's programs keep state."""

from __future__ import annotations

import os
from pathlib import Path


def state_folder() -> Path:
    """Return the folder, by the XDG base directory specification: ``runvisor`` in XDG_STATE_HOME."""
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(home).expanduser() / "runvisor"
