"""What is measured of a live run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from benchmarks.scheduler.real.live import BROKEN_SERVES, PHASES, LiveRun, Sent
from benchmarks.scheduler.real.workload import PROGRAMS

_WINDOW_S: Final = 1.0


def live_figures(run: LiveRun) -> dict[str, Any]:
    """Return the figures of a run: by phase, and of its queues.

    ``swing`` tells herding: by how much the share of an arm among the requests of
    a language changes from one second to the next, summed over arms and halved;
    0 is a steady mix, 1 is everybody moving to another arm at once.
    """
    phases = {name: _of_phase(run.phase(name), name) for name in PHASES}
    waiting = [row[3] for row in run.queues]
    return {
        "policy": run.policy,
        "handles": run.handles,
        "requests": len(run.sent),
        "phases": phases,
        "longest_queue": max(waiting, default=0),
        "mean_queue": float(np.mean(waiting)) if waiting else 0.0,
        "swing": _swing(run),
        "shares": _shares(run.sent),
    }


def _of_phase(sent: Sequence[Sent], name: str) -> dict[str, float]:
    times_ms = [each.latency_s * 1e3 for each in sent if not each.failed]
    figures = {
        "requests": float(len(sent)),
        "p50_ms": float(np.percentile(times_ms, 50)) if times_ms else float("nan"),
        "p99_ms": float(np.percentile(times_ms, 99)) if times_ms else float("nan"),
        "mean_ms": float(np.mean(times_ms)) if times_ms else float("nan"),
        "failed": float(sum(each.failed for each in sent)),
    }
    if name == "broken arm":
        figures["lost"] = float(sum(each.failed and PROGRAMS[each.program].language == BROKEN_SERVES for each in sent))
    return figures


def _shares(sent: Sequence[Sent]) -> dict[str, float]:
    counts = Counter(each.arm for each in sent if not each.failed)
    return {arm: count / max(1, sum(counts.values())) for arm, count in sorted(counts.items())}


def _swing(run: LiveRun) -> float:
    """Return the mean change of the mix from second to second, of seconds in which a language came five times."""
    changes: list[float] = []
    for language in {program.language for program in PROGRAMS.values()}:
        windows: dict[int, Counter[str]] = {}
        for each in run.sent:
            if PROGRAMS[each.program].language == language and not each.failed:
                windows.setdefault(int(each.due_s / _WINDOW_S), Counter())[each.arm] += 1
        for number, counts in windows.items():
            after = windows.get(number + 1)
            if after is not None and min(counts.total(), after.total()) >= 5:
                arms = counts.keys() | after.keys()
                moved = sum(abs(counts[arm] / counts.total() - after[arm] / after.total()) for arm in arms)
                changes.append(moved / 2.0)
    return float(np.mean(changes)) if changes else 0.0
