"""The regimes that policies are compared in, as data.

They were fixed before any policy was run in them, and stay so: a change of a
figure here makes older results incomparable (see docs/decisions/0028).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

NOISY_NEIGHBOUR: Final = ("v8/isolate", "python/native", "container/any")


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Something that happens during a part of the run."""

    kind: Literal["slower", "creeps", "tails", "fails", "load"]
    """Service times multiplied; the same, but growing over the span and staying; the chance of a
    tail multiplied; a chance of failing; the rate of requests multiplied."""
    start: float
    """Where in the run, from 0 to 1."""
    end: float
    factor: float
    arms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Regime:
    """A workload and what happens to the machine while it runs."""

    name: str
    families: int
    rate_per_s: float
    disturbances: tuple[Disturbance, ...] = ()
    walk: float = 0.15
    """Deviation of the random walk that each arm's log speed does in a whole run."""
    contention: float = 0.1
    """What each request in flight beyond five adds to all service times: the machine is shared."""
    rho: float = 1.0
    """Seconds of mean that a second of deviation is worth, in the true cost."""
    equal_means: bool = False
    """Scale each arm so that all have the same mean, compile nothing and fail alike."""
    breaks: bool = False
    """In the middle an arm breaks: a different one from seed to seed, wholly or every second time."""


_EVERYTHING: Final = (
    Disturbance("load", 0.25, 0.35, 2.2),
    Disturbance("slower", 0.40, 0.60, 3.0, NOISY_NEIGHBOUR),
    Disturbance("tails", 0.40, 0.60, 2.0, NOISY_NEIGHBOUR),
    Disturbance("slower", 0.55, 0.85, 2.5, ("wasm/optimised",)),  # a bad upgrade, rolled back
    Disturbance("creeps", 0.30, 0.90, 2.5, ("python/worker",)),  # a leak
    Disturbance("fails", 0.70, 0.85, 0.5, ("v8/shared",)),
)
REGIMES: Final = (
    Regime("busy", families=40, rate_per_s=220.0, disturbances=_EVERYTHING),
    Regime("light", families=40, rate_per_s=40.0, disturbances=_EVERYTHING),
    Regime("long-tail", families=300, rate_per_s=220.0, disturbances=_EVERYTHING),
    Regime("equal-mean", families=40, rate_per_s=60.0, walk=0.0, equal_means=True),
    Regime(
        "drift",
        families=40,
        rate_per_s=110.0,
        walk=0.6,
        disturbances=(
            Disturbance("slower", 0.20, 0.35, 3.0, NOISY_NEIGHBOUR),
            Disturbance("slower", 0.35, 0.55, 2.5, ("wasm/optimised", "v8/shared")),
            Disturbance("creeps", 0.30, 0.90, 4.0, ("python/worker",)),
            Disturbance("slower", 0.65, 0.80, 3.0, NOISY_NEIGHBOUR),
        ),
    ),
    Regime("broken-arm", families=40, rate_per_s=110.0, walk=0.0, breaks=True),
)
BREAKABLE: Final = ("wasm/optimised", "v8/shared", "python/worker", "python/native")
BROKEN_SPAN: Final = (0.5, 0.8)
REQUESTS: Final = 8000
"""In a run."""
BURST_SHARE: Final = 0.03
"""Of arrivals that bring a burst with them."""
MOST_BURST: Final = 12
"""Requests in a burst, at most; at least two, each as likely."""
BURST_GAP_S: Final = 0.0005


def regime(name: str) -> Regime:
    """Return a regime by its name.

    Example:
        >>> regime("busy").rate_per_s
        220.0
    """
    return next(each for each in REGIMES if each.name == name)
