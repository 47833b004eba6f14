"""Supervision in OTP's terms: how often a child may die before its supervisor gives up.

Source of the rule: https://www.erlang.org/doc/system/sup_princ.html (maximum
restart intensity).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class RestartIntensity:
    """At most ``intensity`` restarts in ``period_s`` seconds.

    Example:
        >>> restarts = RestartIntensity(intensity=2, period_s=10.0)
        >>> [restarts.admits(at) for at in (0.0, 1.0, 2.0, 11.5)]
        [True, True, False, True]
    """

    intensity: int = 5
    period_s: float = 30.0
    _times: deque[float] = field(default_factory=deque)

    def admits(self, now: float) -> bool:
        """Count a restart at ``now`` and say whether it is still within bounds."""
        while self._times and now - self._times[0] > self.period_s:
            self._times.popleft()
        if len(self._times) >= self.intensity:
            return False
        self._times.append(now)
        return True
