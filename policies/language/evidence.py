"""Weighs the trained model and the rules together.

In three lines or more the model says most, and the rules correct it. In less the model is vague: what
it leaves open there the rules settle. Measured on tuning windows: docs/decisions/0027.
"""

from __future__ import annotations

import math
from typing import Final

from runvisor.policies.language.signals import scores
from runvisor.policies.language.weights import DIALECT_OF

PROSE: Final = "text"
"""What the model calls a text that is no code."""

_RULES: Final = 0.4
"""What a rule's log-odds count beside the model's, which has seen most of the same words."""
_DIALECT_COSTS: Final = {"cpp": 5.0, "typescript": 1.5}
"""What a dialect loses, if nothing of its own is seen: its parent's tools run such code as well."""
_OWN_COST: Final = 2.0
"""What it loses in short text even so."""


def weigh(text: str) -> tuple[dict[str, float], dict[str, float]]:
    r"""Return the log-odds of each language, up to a constant, and those of the rules for a text of few lines.

    The caller bounds the text's length, to which the work is proportional. The second
    holds only languages for which rules speak; 0 is no evidence.

    Example:
        >>> odds, _ = weigh("let xs = [1, 2]; xs.push(3)\nconsole.log(xs)")
        >>> max(odds, key=odds.__getitem__)
        'javascript'
    """
    from runvisor.policies.language.model import log_odds  # and numpy: not for who only declares languages

    odds = log_odds(text)
    rules = scores(text)
    short = dict(rules)
    for dialect, parent in DIALECT_OF.items():
        if rules.get(dialect, 0.0) > rules.get(parent, 0.0):
            short[dialect] -= _OWN_COST
        else:
            odds[dialect] -= _DIALECT_COSTS[dialect]
            short.pop(dialect, None)
    for language, score in rules.items():
        odds[language] = odds.get(language, 0.0) + _RULES * score
    return odds, short


def ranking(odds: dict[str, float]) -> list[tuple[str, float]]:
    """Turn log-odds into shares by softmax, likeliest first; what has less than a hundredth is left out.

    Example:
        >>> ranking({"c": 2.0, "go": 1.0, "sql": -9.0})
        [('c', 0.731), ('go', 0.269)]
    """
    top = max(odds.values())
    powers = {language: math.exp(odd - top) for language, odd in odds.items()}
    total = sum(powers.values())
    shares = [(language, round(power / total, 3)) for language, power in powers.items() if power / total >= 0.01]
    return sorted(shares, key=lambda item: -item[1])
