"""Audit events and the hash chain over them; writing them down is another room's work.

Each record holds the SHA-256 of the one before it, so that an edit, a removal
or a swap is found by `verify`. An edit of the last record, a tail cut off and a
chain forged anew are found only against a head (the last hash) kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from runvisor.policies.values import to_json

Kind = Literal["execution", "denial", "lifecycle", "connection"]
GENESIS: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that was decided, done or refused."""

    kind: Kind
    action: str
    """A short verb phrase, such as ``execute`` or ``refuse authority``."""
    principal: str
    at: float
    """Unix time in seconds."""
    details: Mapping[str, Any]
    """Plain data; code and inputs appear as hashes only."""


def seal(event: Event, previous: str, index: int) -> tuple[str, str]:
    """Return the record as one JSON line and its hash.

    Args:
        event: What happened.
        previous: Hash of the record before it, or `GENESIS`.
        index: Position in the log, from 0.
    """
    record = {
        "index": index,
        "kind": event.kind,
        "action": event.action,
        "principal": event.principal,
        "at": event.at,
        "details": to_json(dict(event.details)),
        "previous": previous,
    }
    line = json.dumps(record, sort_keys=True, separators=(",", ":"), default=str)
    return line, hashlib.sha256(line.encode()).hexdigest()


def verify(lines: Iterable[str], head: str | None = None) -> str | None:
    """Return None if the chain holds, else one sentence about the first break.

    Args:
        lines: The log, from its first record.
        head: The hash of its last record, kept elsewhere; None does not look at the end.

    Example:
        >>> event = Event("denial", "refuse", "p", 1.0, {})
        >>> first, head = seal(event, GENESIS, 0)
        >>> second, _ = seal(event, head, 1)
        >>> verify([first, second]), verify([second])
        (None, 'record 0: the index says 1')
    """
    previous = GENESIS
    for index, line in enumerate(lines):
        line = line.rstrip("\n")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return f"record {index}: not JSON"
        if not isinstance(record, dict) or record.get("index") != index:
            return f"record {index}: the index says {record.get('index') if isinstance(record, dict) else None}"
        if record.get("previous") != previous:
            return f"record {index}: it does not follow the record before it"
        previous = hashlib.sha256(line.encode(errors="surrogatepass")).hexdigest()
    if head is not None and previous != head:
        return "the last record is not the one that the head is of"
    return None
