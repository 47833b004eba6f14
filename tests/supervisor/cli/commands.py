"""How tests run commands, and read what they say to programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Command = Callable[..., tuple[int, str, str]]
"""Runs a command; returns its exit status, standard output and standard error."""


def document(text: str) -> dict[str, Any]:
    """Return what ``--json`` printed."""
    lines = text.splitlines()
    assert len(lines) == 1, "one document, on one line, and nothing else"
    parsed = json.loads(lines[0])
    assert isinstance(parsed, dict)
    return parsed
