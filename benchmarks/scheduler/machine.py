"""The simulated machine: ten arms, each with a pool, and what a piece of code costs on each of them.

The figures have the shape of measured runtimes, not their values: what starts
fast, what computes fast, what compiles long, what collects garbage and so has a
heavy tail. A service time is

    (overhead + work * speed) * log-normal, and with a small chance * Pareto

The tail is truncated, so that all moments exist and the oracle can know them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from runvisor.policies.scheduling.arms import Arm

MOST_TAIL: Final = 60.0
"""How many times slower than usual the worst of a tail is."""


@dataclass(frozen=True, slots=True)
class SimulatedArm:
    """One runtime with a pool of its own."""

    arm: Arm
    workers: int
    isolation: int
    """1 serves verified code only, 2 also untrusted code, 3 also code that asks for a machine of its own."""
    overhead_ms: float
    numeric: float
    """Milliseconds for a unit of numeric work."""
    strings: float
    allocating: float
    noise: float
    """Deviation of the logarithm of a service time without its tail."""
    tail_chance: float
    tail_if_allocating: float
    """Added to the chance for code that does nothing but allocate."""
    tail_index: float
    """Of the Pareto distribution."""
    tail_scale: float
    compile_ms: float
    """At the first sight of a snippet."""
    failure_chance: float


def _arm(name: str, *languages: str) -> Arm:
    runtime, _, variant = name.partition("/")
    return Arm(runtime, variant, frozenset(languages), frozenset())


ARMS: Final = (
    SimulatedArm(_arm("ebpf/record", "c-record"), 4, 2, 0.004, 1.2, 2.0, 4.0, 0.10, 0.002, 0.00, 3.0, 2.0, 1.5, 0.002),
    SimulatedArm(
        _arm("wasm/optimised", "c-record", "wasm", "python-subset"),
        *(4, 2, 0.06, 1.0, 1.6, 1.4, 0.12, 0.004, 0.00, 3.0, 2.0, 8.0, 0.002),
    ),
    SimulatedArm(
        _arm("wasm/baseline", "c-record", "wasm", "python-subset"),
        *(4, 2, 0.06, 2.2, 2.6, 2.2, 0.12, 0.004, 0.00, 3.0, 2.0, 0.8, 0.002),
    ),
    SimulatedArm(_arm("v8/shared", "javascript"), 3, 1, 0.15, 1.4, 1.0, 1.3, 0.20, 0.03, 0.08, 2.2, 3.0, 0.1, 0.004),
    SimulatedArm(_arm("v8/isolate", "javascript"), 3, 2, 1.2, 1.4, 1.0, 1.3, 0.25, 0.025, 0.05, 2.2, 3.0, 0.3, 0.003),
    SimulatedArm(
        _arm("wasm/quickjs", "javascript"), *(3, 2, 0.30, 12.0, 8.0, 10.0, 0.12, 0.006, 0.02, 3.0, 2.0, 0.1, 0.002)
    ),
    SimulatedArm(
        _arm("python/worker", "python", "python-subset"),
        *(2, 1, 0.25, 15.0, 3.0, 5.0, 0.30, 0.03, 0.03, 1.9, 3.0, 0.1, 0.004),
    ),
    SimulatedArm(
        _arm("python/native", "python", "python-subset"),
        *(3, 2, 4.0, 15.0, 3.0, 5.0, 0.35, 0.05, 0.03, 1.8, 3.0, 0.1, 0.004),
    ),
    SimulatedArm(
        _arm("wasm/cpython", "python", "python-subset"),
        *(2, 3, 2.0, 40.0, 12.0, 18.0, 0.12, 0.006, 0.01, 3.0, 2.0, 0.2, 0.003),
    ),
    SimulatedArm(
        _arm("container/any", "c-record", "wasm", "javascript", "python", "python-subset"),
        *(2, 3, 25.0, 12.0, 3.0, 4.5, 0.25, 0.05, 0.02, 1.8, 2.5, 30.0, 0.003),
    ),
)
"""Also the order of preference at equal score."""

LANGUAGES: Final = ("c-record", "wasm", "javascript", "python", "python-subset")


def pareto_moments(index: float, scale: float, most: float = MOST_TAIL) -> tuple[float, float]:
    """Return the first and second moment of a Pareto variable that is cut off at ``most``.

    ``E[X^k] = a s^a (s^(k-a) - most^(k-a)) / ((a-k) (1 - (s/most)^a))``; see Aban, Meerschaert and
    Panorska, "Parameter Estimation for the Truncated Pareto Distribution", JASA 101(473), 2006.

    Example:
        >>> first, second = pareto_moments(3.0, 2.0)
        >>> round(first, 3), round(second, 3)
        (2.997, 11.6)
    """
    kept = 1.0 - (scale / most) ** index

    def moment(order: int) -> float:
        if abs(index - order) < 1e-9:
            return float(index * scale**index * math.log(most / scale) / kept)
        powers = scale ** (order - index) - most ** (order - index)
        return float(index * scale**index * powers / ((index - order) * kept))

    return moment(1), moment(2)
