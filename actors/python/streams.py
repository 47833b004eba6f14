"""stdout and stderr of a guest: each line leaves at once, and the rest before the answer."""

from __future__ import annotations

import contextlib
import sys


def buffer_lines() -> None:
    """Send each line on as soon as it is whole."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def flush() -> None:
    """Send on what is not yet a whole line."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the guest may have replaced or closed it
            stream.flush()
