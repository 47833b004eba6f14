"""Time that has passed since something was learned, by clocks that can be set back."""

from __future__ import annotations

import math
from typing import Final

MOST_AHEAD_S: Final = 600.0
"""Clocks of nodes lie less apart than this; what was learned later than that from now was learned by another clock."""


def passed_s(since: float, now: float) -> float:
    """Return the seconds from one Unix time to another: 0 if it is a little ahead, endless if no clock explains it.

    Example:
        >>> passed_s(100.0, 160.0), passed_s(160.0, 100.0), passed_s(2e9, 1.7e9)
        (60.0, 0.0, inf)
    """
    if now >= since:
        return now - since
    return 0.0 if since - now <= MOST_AHEAD_S else math.inf
