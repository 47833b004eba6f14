"""The circuit breaker of an arm: after a burst of failures of ours it is left alone, then probed.

The pattern is M. Nygard's ("Release It!", 2007). Its state is part of what is
learned, so a handle sees it as of its last snapshot. One probe at a time is
kept exactly by whoever both selects and learns; a handle keeps to one probe per
snapshot, so that with N handles up to N probes may run at once.

It never decides what may run a task: when all eligible arms are open, the
ordinary score decides among just these.
"""

from __future__ import annotations

from typing import Final

from runvisor.policies.scheduling.clocks import MOST_AHEAD_S
from runvisor.policies.scheduling.wire import check

_KEPT: Final = 0.9
_LEAST_TRIALS: Final = 4.0


class Breaker:
    """Closed at first; open until a time; then half open until a probe ends.

    Example:
        >>> breaker = Breaker()
        >>> for _ in range(6):
        ...     _ = breaker.learn(True, at=0.0, open_above=0.35, first_s=1.0, most_s=10.0)
        >>> breaker.is_open(0.5), breaker.wants_probe(0.5), breaker.wants_probe(1.5)
        (True, False, True)
        >>> breaker.learn(False, at=2.0, open_above=0.35, first_s=1.0, most_s=10.0)
        True
        >>> breaker.is_tripped
        False
    """

    __slots__ = ("failures", "opens_at", "pause_s", "trials")

    def __init__(self, failures: float = 0.0, trials: float = 0.0, opens_at: float = 0.0, pause_s: float = 0.0) -> None:
        self.failures = failures
        """Recent failures, each outcome counting a tenth less than the one after it."""
        self.trials = trials
        self.opens_at = opens_at
        """When the next probe may be sent."""
        self.pause_s = pause_s
        """The last pause; 0 while the breaker is closed."""

    @property
    def is_tripped(self) -> bool:
        """Whether it is open or half open."""
        return self.pause_s > 0.0

    def is_open(self, now: float, patience_s: float = 60.0) -> bool:
        """Say whether ordinary tasks stay away: it is tripped, and not since so long ago that nobody probes."""
        return self.pause_s > 0.0 and now < self.opens_at + patience_s

    def wants_probe(self, now: float) -> bool:
        """Say whether one task may be sent to find out."""
        return self.pause_s > 0.0 and (now >= self.opens_at or self._is_of_another_clock(now))

    def learn(self, failed: bool, *, at: float, open_above: float, first_s: float, most_s: float) -> bool:
        """Take one outcome; return whether it closed the breaker."""
        self.failures = self.failures * _KEPT + failed
        self.trials = self.trials * _KEPT + 1.0
        if self.pause_s:
            if at < self.opens_at and not self._is_of_another_clock(at):
                return False  # it was sent before the breaker opened
            if failed:
                self.pause_s = min(2.0 * self.pause_s, most_s)
                self.opens_at = at + self.pause_s
                return False
            self.failures = self.trials = self.pause_s = 0.0
            return True
        if self.trials > _LEAST_TRIALS and self.failures > open_above * self.trials:
            self.pause_s = first_s
            self.opens_at = at + first_s
        return False

    def _is_of_another_clock(self, now: float) -> bool:
        return now < self.opens_at - self.pause_s - MOST_AHEAD_S

    def to_wire(self) -> list[float]:
        """Return plain data."""
        return [self.failures, self.trials, self.opens_at, self.pause_s]

    @classmethod
    def from_wire(cls, failures: float, trials: float, opens_at: float, pause_s: float) -> Breaker:
        """Rebuild a breaker.

        Raises:
            ProtocolError: The numbers do not describe one.
        """
        check(holds=0 <= failures <= trials + 1e-6 <= 11 and 0 <= pause_s <= 1e9, what="a breaker")
        return cls(failures, trials, opens_at, pause_s)
