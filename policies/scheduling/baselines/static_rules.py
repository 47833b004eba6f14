"""Takes the runtime that a table names for the language.

The rule of next-rc, the system whose paper this one follows: a fixed score for
each runtime that suits the language, and a bonus or malus by its success rate.
Neither latency, its variance nor the load is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Choice, Context, Ending, Outcome, check_arms
from runvisor.policies.scheduling.baselines.moments import Moments
from runvisor.policies.scheduling.decision import Candidate

SCORES: Final[Mapping[str, float]] = {"ebpf": 160.0, "wasm": 150.0, "v8": 130.0, "python": 120.0, "container": 119.9}
_SUITED: Final[Mapping[str, tuple[str, ...]]] = {
    "c-record": ("ebpf", "wasm", "container"),
    "c-packet": ("ebpf", "container"),
    "javascript": ("v8", "container"),
    "typescript": ("v8", "container"),
    "python": ("python", "container"),
    "python-subset": ("python", "container"),
}
_OTHERWISE: Final = ("wasm", "container")
_UNSUITED: Final = -1000.0
_GOOD, _BONUS = 0.9, 15.0
_BAD, _MALUS = 0.5, -20.0
_MEMORY: Final = 1000


class StaticRulesScheduler:
    """The runtime that the table prefers for the language, unless it fails most of the time.

    Example:
        >>> from runvisor.policies.scheduling.arms import ARMS
        >>> arms = [arm for arm in ARMS if "python" in arm.languages]
        >>> StaticRulesScheduler().select(Context("python:s", 5.0), arms[::-1], 0.0, ()).arm
        'python/jit'
    """

    name = "static-rules"
    objective = "negative score of the rules"

    def __init__(self) -> None:
        self._successes: dict[tuple[str, str], Moments] = {}

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Return the arm with the highest score; the first of equals."""
        del now
        check_arms(arms, draws)
        language = context.family.partition(":")[0]
        candidates = tuple(Candidate(arm.name, score_s=-self._score(language, arm)) for arm in arms)
        best = min(candidates, key=lambda candidate: candidate.score_s or 0.0)
        return Choice(best.arm, False, candidates)

    def update(self, outcome: Outcome) -> None:
        """Count a success or a failure of an arm with a language."""
        key = (outcome.family.partition(":")[0], outcome.arm)
        self._successes.setdefault(key, Moments()).add(float(outcome.ending is Ending.RAN), _MEMORY)

    def _score(self, language: str, arm: Arm) -> float:
        suited = arm.runtime in _SUITED.get(language, _OTHERWISE)
        score = SCORES.get(arm.runtime, 100.0) + (0.0 if suited else _UNSUITED)
        rate = self._successes.get((language, arm.name))
        if rate is None:
            return score
        return score + (_BONUS if rate.mean > _GOOD else _MALUS if rate.mean < _BAD else 0.0)
