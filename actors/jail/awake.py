"""Staying awake for an answer that is expected at once.

Two ends that sleep in turn cost two wake-ups per exchange, and on a virtual
machine a core without work is given away meanwhile: that takes longer than a
short cell. So an end that has just sent something looks for what comes back
for a moment before it sleeps, as long as it has a core for itself.
"""

from __future__ import annotations

import os
import select
import time
from typing import Final

AWAKE_S: Final = 200e-6
"""How long an end stays awake, after what it has sent."""
_BUSY_S: Final = 20e-6
"""A yield that takes longer has given the core to somebody who needs it."""
_DISCOURAGED_S: Final = 0.1


class Lookout:
    """Looks for what becomes ready; one for all that a process waits for in this way.

    Each look yields the core (sched_yield in section 2 of the manual). When
    somebody took it, looking only delays both: then nothing is looked for
    during a tenth of a second, and the end sleeps at once.

    Args:
        awake_s: How long one look takes at most.
    """

    def __init__(self, awake_s: float = AWAKE_S) -> None:
        self._awake_s = awake_s
        self._not_before = 0.0

    def look(self, poll: select.poll) -> list[tuple[int, int]]:
        """Return what is ready in a poll, or becomes so within a moment; else nothing."""
        now = time.monotonic()
        if now < self._not_before:
            return []
        asleep_at = now + self._awake_s
        while not (ready := poll.poll(0)) and now < asleep_at:
            os.sched_yield()
            before, now = now, time.monotonic()
            if now - before > _BUSY_S:
                self._not_before = now + _DISCOURAGED_S
                return []
        return ready
