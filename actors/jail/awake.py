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
    """Looks for what becomes ready in a poll.

    Each look yields the core (sched_yield in section 2 of the manual). When
    somebody took it, looking only delays both: then nothing is looked for
    during a tenth of a second, and the end sleeps at once.

    Args:
        poll: Where the descriptors are registered.
    """

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self._not_before = 0.0

    def look(self) -> list[tuple[int, int]]:
        """Return what is ready, or becomes so within a moment; else nothing."""
        now = time.monotonic()
        if now < self._not_before:
            return []
        asleep_at = now + AWAKE_S
        while not (ready := self._poll.poll(0)) and now < asleep_at:
            os.sched_yield()
            before, now = now, time.monotonic()
            if now - before > _BUSY_S:
                self._not_before = now + _DISCOURAGED_S
                return []
        return ready
