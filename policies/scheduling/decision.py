"""A decision: which arm, why, and what was said against the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

HEADINGS: Final = ("arm", "mean", "p95", "wait", "failure chance", "score", "excluded because")
"""Of `Decision.table`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the scheduler believed of one arm when it chose."""

    arm: str
    mean_s: float | None = None
    """Predicted mean service time; None if the policy predicts none."""
    std_s: float | None = None
    """Predicted standard deviation of service time."""
    samples: int = 0
    """Outcomes behind the prediction."""
    score_s: float | None = None
    """What was minimised; in seconds, unless the objective is a probability or a cost."""
    excluded_because: str = ""
    """Set when a hard constraint struck it out."""
    p95_s: float | None = None
    """Predicted service time that 95 of 100 runs keep below."""
    wait_s: float | None = None
    """Expected wait for an instance; None if no pool said how busy it is."""
    failure_chance: float | None = None
    """Expected probability that our side fails or that the time runs out."""


class TableRow(NamedTuple):
    """One arm of a decision, as text under `HEADINGS`; empty is unknown."""

    arm: str
    mean: str
    p95: str
    wait: str
    failure_chance: str
    score: str
    excluded_because: str


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
    candidates: Sequence[Candidate]
    explored: bool = False
    """Whether the arm was tried to learn about it rather than because it looked best."""
    objective: str = "mean + rho * std"
    language_reason: str = ""
    """How the language was known, when it was not declared."""
    found: str = ""
    """What was found in the code that bears on the choice."""
    expected_s: float = 0.0
    """Expected service time of the chosen arm, waiting left out; 0 is unknown."""

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

    def table(self) -> list[TableRow]:
        """Return a row per arm that knows the language, the best score first, those struck out last.

        Example:
            >>> candidate = Candidate("v8/isolate", 0.002, 0.001, 5, 0.004, "", 0.0041, 0.0, 0.01)
            >>> Decision("v8/isolate", (candidate,)).table()[0][:6]
            ('v8/isolate', '2 ms', '4.1 ms', '0 ms', '1%', '0.004')
        """
        ordered = sorted(
            self.candidates,
            key=lambda c: (bool(c.excluded_because), c.arm != self.arm, c.score_s if c.score_s is not None else 0.0),
        )
        return [
            TableRow(
                c.arm,
                _milliseconds(c.mean_s),
                _milliseconds(c.p95_s),
                _milliseconds(c.wait_s),
                "" if c.failure_chance is None else f"{c.failure_chance * 100:.2g}%",
                "" if c.score_s is None else f"{c.score_s:.3g}",
                c.excluded_because,
            )
            for c in ordered
        ]

    def to_wire(self) -> dict[str, Any]:
        """Return plain data, from which `from_wire` rebuilds an equal decision."""
        return {
            "arm": self.arm,
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "explored": self.explored,
            "objective": self.objective,
            "language_reason": self.language_reason,
            "found": self.found,
            "expected_s": self.expected_s,
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Decision:
        """Rebuild a decision; `KeyError` or `TypeError` if the data does not describe one."""
        candidates = tuple(Candidate(**candidate) for candidate in data["candidates"])
        return cls(**{**data, "candidates": candidates})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, the explanation included."""
        return {**self.to_wire(), "explanation": self.explain()}


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.3g} ms"


def _belief(candidate: Candidate) -> str:
    if not candidate.samples or candidate.mean_s is None or candidate.std_s is None:
        return "not tried yet"
    text = (
        f"expected {candidate.mean_s * 1e3:.3g} ms with a deviation of {candidate.std_s * 1e3:.3g} ms "
        f"from {candidate.samples} run{'s' if candidate.samples != 1 else ''}"
    )
    if candidate.wait_s:
        text += f", after a wait of {candidate.wait_s * 1e3:.3g} ms"
    if candidate.failure_chance is not None and candidate.failure_chance >= 0.05:
        text += f", failing {candidate.failure_chance * 100:.0f}% of the time"
    return text
