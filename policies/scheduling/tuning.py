"""The constants of the learned scheduler, with units and defaults for production."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from runvisor.policies.values import is_number

_MAY_BE_ZERO: Final = frozenset({"explore", "family_sd", "family_arm_sd", "weight_sd", "drift_per_s", "most_drift"})
_WHOLE: Final = frozenset({"max_families", "tail_strength"})


@dataclass(frozen=True, slots=True)
class Tuning:
    """What an operator may change. Deviations are of log service time: 0.5 is a factor of 1.6.

    Example:
        >>> Tuning(explore=0).explore
        0
    """

    explore: float = 0.5
    """How strongly doubt about an arm leads to trying it; 0 never does."""
    arm_sd: float = 1.0
    """How far arms lie apart, before anything is known."""
    family_sd: float = 1.2
    """How far families lie apart."""
    family_arm_sd: float = 0.5
    """How far an arm's speed for one family lies from its speed in general."""
    weight_sd: float = 0.3
    """How much a unit of a feature may matter."""
    drift_per_s: float = 0.002
    """Variance that an arm's passing offset gains per second: noisy neighbours, upgrades."""
    drift_reversion_s: float = 600.0
    """The time in which that offset fades to 1/e, unless outcomes keep it up."""
    most_drift: float = 0.5
    """Where its variance ends."""
    failure_fade_s: float = 60.0
    """The time in which evidence of failures fades to 1/e."""
    failure_strength: float = 40.0
    """How many trials the rate of the arm is worth beside those of the family on it."""
    tail_strength: int = 150
    """How many runs the arm's tail is worth beside that of the family on it."""
    load_fade_s: float = 1.0
    """The time in which what a pool said of its load fades to 1/e."""
    open_above: float = 0.35
    """The share of recent failures above which an arm's breaker opens."""
    first_pause_s: float = 0.3
    """How long it stays open at first; twice that after each failed probe."""
    most_pause_s: float = 10.0
    """Where that ends."""
    max_families: int = 256
    """Families kept; the one not seen for longest makes room."""

    def __post_init__(self) -> None:
        for field in fields(self):
            number = getattr(self, field.name)
            if field.name in _WHOLE and (not isinstance(number, int) or number > 1_000_000):
                raise ValueError(f"{field.name} is a whole number up to a million, not {number!r}")
            least = 0 if field.name in _MAY_BE_ZERO else 1e-9
            if not is_number(number) or not least <= number <= 1e9:
                raise ValueError(f"{field.name} is a number of at least {least:g}, not {number!r}")

    def to_wire(self) -> dict[str, float]:
        """Return plain data."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Tuning:
        """Rebuild it; `KeyError`, `TypeError` or `ValueError` if the data is damaged."""
        return cls(**{field.name: data[field.name] for field in fields(cls)})
