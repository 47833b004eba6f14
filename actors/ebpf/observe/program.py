"""What makes up one observation: its C text, its hooks, its tables, and how rows come of entries."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from runvisor.actors.ebpf.observe.harness import Hook
from runvisor.policies.observations import Cell, Column

Entry = tuple[bytes, list[bytes]]
"""A key of the table, and its value on each core."""
_NANOSECONDS: Final = 1e9


@dataclass(frozen=True, slots=True)
class ObservationProgram:
    """One built-in observation."""

    name: str
    body: str
    """C functions, one for each hook, that call what the harness gives."""
    hooks: tuple[Hook, ...]
    key_bytes: int
    value: struct.Struct
    """Of one core."""
    pending_bytes: int
    entries: int
    """How many the table holds."""
    columns: tuple[Column, ...]
    rows: Callable[[Iterable[Entry]], list[tuple[Cell, ...]]]
    """Makes rows of the table's entries, which come from an executor and may be any bytes of the right size."""


def seconds(nanoseconds: int) -> float:
    """Return a time of the kernel's in seconds."""
    return nanoseconds / _NANOSECONDS


def text_of(raw: bytes) -> str:
    """Return a text that ends at its first zero byte; bytes that are not UTF-8 show as such."""
    return raw.partition(b"\0")[0].decode(errors="backslashreplace")


def error_name(number: int) -> str:
    """Return the name of an error number, or the number.

    Example:
        >>> error_name(2), error_name(4095)
        ('ENOENT', 'error 4095')
    """
    return errno.errorcode.get(number, f"error {number}")
