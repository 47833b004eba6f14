"""How often an arm fails, believed of a family on it, of the arm, and of all arms."""

from __future__ import annotations

import math
from typing import Final

from runvisor.policies.scheduling.wire import check

MEMORY: Final = 50
"""Trials after which older ones fade, however close in time they are."""
_KEPT: Final = 1.0 - 1.0 / MEMORY


class FailureRate:
    """Failures among trials; both fade with time and with every trial.

    Time fades them because an arm that is avoided for failing gets no trials, and
    would otherwise never be tried again after it healed; trials do, because a
    busy arm that breaks must be found out within dozens of requests.

    Example:
        >>> rate = FailureRate()
        >>> rate.add(1.0, at=0.0, fade_s=60.0)
        >>> round(rate.estimate(0.0, 0.0, strength=10.0, fade_s=60.0), 3)
        0.091
        >>> round(rate.estimate(600.0, 0.0, strength=10.0, fade_s=60.0), 3)
        0.0
    """

    __slots__ = ("at", "failures", "trials")

    def __init__(self, failures: float = 0.0, trials: float = 0.0, at: float = 0.0) -> None:
        self.failures = failures
        self.trials = trials
        self.at = at
        """When the last trial ended, in Unix seconds."""

    def add(self, failed: float, *, at: float, fade_s: float) -> None:
        """Take one trial; ``failed`` is 1, 0, or what of a failure is laid at its door."""
        kept = _KEPT
        if at > self.at:
            kept *= math.exp((self.at - at) / fade_s)
            self.at = at
        self.failures = self.failures * kept + failed
        self.trials = self.trials * kept + 1.0

    def estimate(self, now: float, prior: float, *, strength: float, fade_s: float) -> float:
        """Return the probability of a failure: the posterior mean under a beta prior.

        Args:
            now: Unix time in seconds.
            prior: The rate to expect without evidence.
            strength: How many trials that expectation is worth.
            fade_s: The time in which evidence fades to 1/e.
        """
        if not self.trials:
            return prior
        kept = math.exp((self.at - now) / fade_s) if now > self.at else 1.0
        return (self.failures * kept + strength * prior) / (self.trials * kept + strength)

    def forgive(self, kept: float) -> None:
        """Keep only a share of the evidence: a probe has gone well."""
        self.failures *= kept
        self.trials *= kept

    def to_wire(self) -> list[float]:
        """Return plain data."""
        return [self.failures, self.trials, self.at]

    @classmethod
    def from_wire(cls, failures: float, trials: float, at: float) -> FailureRate:
        """Rebuild a rate.

        Raises:
            ProtocolError: The numbers do not describe one.
        """
        check(holds=0 <= failures <= trials + 1e-6 <= MEMORY + 1, what="a failure rate")
        return cls(failures, trials, at)
