"""How many instances to keep warm: as many as a burst has lately taken, and no more."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

_WINDOW_S: Final = 0.25
_HALF_LIFE_S: Final = 20.0


class Demand:
    """Remembers how many instances were taken at once, and forgets it in time.

    A burst is what is taken within a quarter of a second, about the time in
    which a pool refills. The largest burst halves every twenty seconds, so a pool
    grows at once and shrinks slowly.

    Args:
        minimum: The least to keep.
        maximum: The most to keep.

    Example:
        >>> demand = Demand(minimum=2, maximum=16)
        >>> for _ in range(8):
        ...     demand.note(now=1.0)
        >>> demand.target(now=1.0), demand.target(now=41.0), demand.target(now=500.0)
        (8, 2, 2)
    """

    def __init__(self, minimum: int, maximum: int) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._taken: deque[float] = deque(maxlen=maximum)
        self._burst = 0.0
        self._burst_at = 0.0

    def note(self, now: float) -> None:
        """Record that one instance was taken.

        Args:
            now: Seconds on a clock that only rises.
        """
        self._taken.append(now)
        while self._taken[0] < now - _WINDOW_S:
            self._taken.popleft()
        present = self._decayed(now)
        if len(self._taken) >= present:
            self._burst, self._burst_at = float(len(self._taken)), now

    def target(self, now: float) -> int:
        """Return how many to keep warm."""
        return max(self._minimum, min(self._maximum, math.ceil(self._decayed(now) - 1e-9)))

    def next_change_s(self, now: float) -> float | None:
        """Return after how many seconds the target sinks by itself, or None if it is at its least."""
        target = self.target(now)
        if target <= max(1, self._minimum):
            return None
        sinks_at = self._burst_at + _HALF_LIFE_S * math.log2(self._burst / (target - 1))
        return max(0.001, sinks_at - now + 0.001)

    def _decayed(self, now: float) -> float:
        return float(self._burst * 0.5 ** ((now - self._burst_at) / _HALF_LIFE_S))
