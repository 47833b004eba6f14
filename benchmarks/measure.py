"""Measuring: interleaved rounds, median and p99, ratios within one run, results with machine and commit."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from runvisor.actors.garbage import settle

Contender = Callable[[int], list[float]]
"""Makes that many calls in a row and returns the seconds that each took."""

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """One contender's times."""

    name: str
    samples: int
    median_ms: float
    p99_ms: float
    ratio: float
    """Median over the reference's median."""
    bar: str = ""
    """What the issue asks for, and whether this run met it."""


def interleave(
    contenders: Mapping[str, Contender],
    *,
    rounds: int,
    pauses_s: Mapping[str, float] = {},
    repeats: Mapping[str, int] = {},
    bursts: Mapping[str, int] = {},
) -> dict[str, list[float]]:
    """Time the contenders in turn, round after round, so that the machine's moods hit all alike.

    Args:
        contenders: What to time, by name.
        rounds: How many rounds.
        pauses_s: Idle time before a contender, for a pool to refill.
        repeats: For a slow contender, in how many of the rounds it runs.
        bursts: For a fast one, how many calls in a row a round takes; each is a sample.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in track(range(rounds), description="measuring"):
        for name, call in contenders.items():
            every = max(1, rounds // repeats.get(name, rounds))
            if number % every:
                continue
            time.sleep(pauses_s.get(name, 0.0))
            times[name] += call(bursts.get(name, 1))
    return times


def timed(call: Callable[[], None]) -> Contender:
    """Return a contender that times a call in this process."""

    def sample(count: int) -> list[float]:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return times

    return sample


@contextmanager
def apart(make: Callable[[], tuple[Callable[[], None], Callable[[], None]]]) -> Iterator[Contender]:
    """Time a call in a process of its own, as a pool has one.

    Args:
        make: A module-level function, run over there, that returns (the call, how to end it).
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make))
    process.start()
    assert ours.recv() == "ready"

    def sample(count: int) -> list[float]:
        ours.send(count)
        times = ours.recv()
        assert isinstance(times, list)
        return times

    try:
        yield sample
    finally:
        ours.send(None)
        process.join(30)


def _serve(pipe: Connection, make: Callable[[], tuple[Callable[[], None], Callable[[], None]]]) -> None:
    call, end = make()
    settle()  # as a pool does
    try:
        pipe.send("ready")
        while (count := pipe.recv()) is not None:
            pipe.send(timed(call)(count))
    finally:
        end()


def quantile_ms(times: Sequence[float], q: float) -> float:
    """Return a quantile in milliseconds."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1e3


def summarise(times: Mapping[str, list[float]], reference: str, bars_ms: Mapping[str, float] = {}) -> list[Timing]:
    """Return a row per contender, with its ratio to the reference's median."""
    base = statistics.median(times[reference])
    rows = []
    for name, values in times.items():
        median = statistics.median(values)
        limit = bars_ms.get(name)
        bar = "" if limit is None else f"<= {limit:g} ms: {'met' if median * 1e3 <= limit else 'MISSED'}"
        rows.append(Timing(name, len(values), median * 1e3, quantile_ms(values, 0.99), median / base, bar))
    return rows


def report(question: str, rows: Sequence[Timing], reference: str, extra: Mapping[str, Any] = {}) -> None:
    """Print the table and write it to results/, with the machine and the commit."""
    table = Table("contender", "samples", "median ms", "p99 ms", f"ratio to {reference}", "bar", title=question)
    for row in rows:
        table.add_row(
            row.name, str(row.samples), f"{row.median_ms:.3f}", f"{row.p99_ms:.3f}", f"{row.ratio:.3f}", row.bar
        )
    console = Console()
    console.print(table)
    for name, value in extra.items():
        console.print(f"{name}: {value}")
    RESULTS.mkdir(exist_ok=True)
    document = {"question": question, **machine(), "rows": [asdict(row) for row in rows], **extra}
    path = RESULTS / f"{question.replace(' ', '-')}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    console.print(f"written to benchmarks/results/{path.name}")


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge the figures."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
        "load_average": os.getloadavg()[0],
    }
