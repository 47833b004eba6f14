"""Reading numbers and tables that came over the wire."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from runvisor.policies.errors import ProtocolError
from runvisor.policies.scheduling.base import MAX_NAME_CHARS

_KINDS: Final = frozenset((int, float))


def numbers(data: object, size: int | None = None) -> list[float]:
    """Return a peer's list of finite numbers.

    Raises:
        ProtocolError: It is not a list of that many.
    """
    if not isinstance(data, list) or len(data) != (size or len(data)) or not _KINDS.issuperset(map(type, data)):
        raise ProtocolError(f"{size or 'only'} numbers were expected")
    try:
        is_finite = math.isfinite(math.fsum(map(abs, data)))  # one sum finds any nan or infinity
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise ProtocolError("a number is not finite, or too large")
    return data


def named(table: Mapping[str, Any], limit: int) -> list[tuple[str, Any]]:
    """Return the rows of a peer's table.

    Raises:
        ProtocolError: It has more than ``limit``, or one without a name.
    """
    items = list(table.items())
    if len(items) > limit or not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS for name, _ in items):
        raise ProtocolError(f"a table of a policy has more than {limit} rows, or one without a name")
    return items


def check(*, holds: bool, what: str) -> None:
    """Refuse what is out of range.

    Raises:
        ProtocolError: It is.
    """
    if not holds:
        raise ProtocolError(f"{what} is out of range")
