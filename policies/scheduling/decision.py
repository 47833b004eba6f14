"""A decision: which arm, why, and what was said against the others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the scheduler believed of one arm when it chose."""

    arm: str
    mean_s: float | None = None
    """Predicted mean latency; None before the first outcome."""
    std_s: float | None = None
    """Predicted standard deviation of latency."""
    samples: int = 0
    """Outcomes behind the prediction."""
    score_s: float | None = None
    """What was minimised."""
    excluded_because: str = ""
    """Set when a hard constraint struck it out."""
    p95_s: float | None = None
    """Predicted service time that 95 of 100 runs keep below."""
    wait_s: float | None = None
    """Expected wait for an instance."""
    failure_chance: float | None = None
    """Expected probability that our side fails or that the time runs out."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen arm with its reasons.

    Example:
        >>> print(Decision("wasm/record", (Candidate("wasm/record"),
        ...       Candidate("ebpf/record", excluded_because="untrusted code may not run there"))).explain())
        Chose wasm/record, the only arm that may run this task. \
Struck out: ebpf/record (untrusted code may not run there).
    """

    arm: str
    candidates: tuple[Candidate, ...]
    explored: bool = False
    """Whether the arm was tried to learn about it rather than because it looked best."""
    objective: str = "mean + rho * std"
    language_reason: str = ""
    """How the language was known, when it was not declared."""
    found: str = ""
    """What was found in the code that bears on the choice."""

    @property
    def expected_s(self) -> float:
        """What was expected of the chosen arm's service time, waiting left out; 0 where nothing was."""
        return next((c.mean_s or 0.0 for c in self.candidates if c.arm == self.arm), 0.0)

    def explain(self) -> str:
        """Say in plain sentences why this arm was chosen."""
        running = [c for c in self.candidates if not c.excluded_because]
        chosen = next((c for c in running if c.arm == self.arm), Candidate(self.arm))
        text = f"Chose {self.arm}"
        if len(running) <= 1:
            text += ", the only arm that may run this task"
            if chosen.samples:
                text += f" ({_belief(chosen)})"
        elif not any(c.samples for c in running):
            text += ", the preferred one of those that may run this task; none has been tried yet"
        elif self.explored:
            text += f" to learn about it ({_belief(chosen)})"
        else:
            text += f": {_belief(chosen)}, the lowest {self.objective}"
        text += "."
        others = [f"{c.arm} ({_belief(c)})" for c in running if c.arm != self.arm]
        if others and any(c.samples for c in running):
            text += f" Against {', '.join(others)}."
        struck = [f"{c.arm} ({c.excluded_because})" for c in self.candidates if c.excluded_because]
        if struck:
            text += f" Struck out: {', '.join(struck)}."
        for reason in (self.found, self.language_reason):
            if reason:
                text += f" {reason}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, the explanation included."""
        return {**asdict(self), "explanation": self.explain()}


def _belief(candidate: Candidate) -> str:
    if not candidate.samples or candidate.mean_s is None or candidate.std_s is None:
        return "not tried yet"
    return (
        f"expected {candidate.mean_s * 1e3:.3g} ms with a deviation of {candidate.std_s * 1e3:.3g} ms "
        f"from {candidate.samples} run{'s' if candidate.samples != 1 else ''}"
    )
