"""How often an arm fails, believed of a family on it, of the arm, and of all arms."""

from __future__ import annotations

import math
from typing import Final

from runvisor.policies.scheduling.clocks import passed_s
from runvisor.policies.scheduling.wire import check

MEMORY: Final = 50
"""Trials of an arm after which older ones fade, however close in time they are."""
OVERALL_MEMORY: Final = 500
"""The same for all arms together."""
_SPARED: Final = 1.0
"""Failures that prove nothing: among dozens of trials one happens to the best of arms."""


class FailureRate:
    """Failures among trials; both fade with time and with every trial.

    Time fades them because an arm that is avoided for failing gets no trials, and
    would otherwise never be tried again after it healed; trials do, because a
    busy arm that breaks must be found out within dozens of requests.

    Example:
        >>> rate = FailureRate()
        >>> for _ in range(3):
        ...     rate.add(1.0, at=0.0, fade_s=60.0)
        >>> round(rate.estimate(0.0, 0.0, strength=10.0, fade_s=60.0), 3)
        0.15
        >>> round(rate.estimate(600.0, 0.0, strength=10.0, fade_s=60.0), 3)
        0.0
    """

    __slots__ = ("at", "failures", "trials")

    def __init__(self, failures: float = 0.0, trials: float = 0.0, at: float = 0.0) -> None:
        self.failures = failures
        self.trials = trials
        self.at = at
        """When the last trial ended, in Unix seconds."""

    def add(self, failed: float, *, at: float, fade_s: float, memory: int = MEMORY) -> None:
        """Take one trial; ``failed`` is 1, 0, or what of a failure is laid at its door."""
        kept = 1.0 - 1.0 / memory
        passed = passed_s(self.at, at)
        if passed:
            kept *= math.exp(-passed / fade_s)
            self.at = at
        self.failures = self.failures * kept + failed
        self.trials = self.trials * kept + 1.0

    def estimate(self, now: float, prior: float, strength: float, fade_s: float) -> float:
        """Return the probability of a failure: the posterior mean under a beta prior, one failure spared.

        Args:
            now: Unix time in seconds.
            prior: The rate to expect without evidence.
            strength: How many trials that expectation is worth.
            fade_s: The time in which evidence fades to 1/e.
        """
        if not self.trials:
            return prior
        kept = math.exp(-passed_s(self.at, now) / fade_s)
        failures = self.failures * kept - _SPARED
        return ((failures if failures > 0.0 else 0.0) + strength * prior) / (self.trials * kept + strength)

    def share(self, now: float, prior: float, strength: float, fade_s: float) -> float:
        """Return the same without sparing any: what is usual."""
        kept = math.exp(-passed_s(self.at, now) / fade_s)
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
        check(holds=0 <= failures <= trials + 1e-6 <= OVERALL_MEMORY + 1, what="a failure rate")
        return cls(failures, trials, at)
