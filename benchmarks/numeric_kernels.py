"""How much faster does hot numeric Python run when it is compiled to WebAssembly?

Run it with ``python -m benchmarks.numeric_kernels [rounds]``. Both sides run in
this process, in turn, on the same arguments, and their results must be equal
to the last bit. What counts is a warm call, transfer of its arguments
included; the first one, which also compiles, stands beside it.
"""

from __future__ import annotations

import ast
import copy
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measure import RESULTS, machine
from runvisor.actors.python.numeric.accelerate import Accelerator
from runvisor.actors.python.numeric.engine import Engine

PROGRAMS = Path(__file__).parent / "kernels" / "programs.py"
ROUNDS = 5
MEDIAN_BAR = 8.0
FIRST_BAR = 15.0
FIRST = 3


def arguments() -> dict[str, tuple[Any, ...]]:
    """Return each kernel's arguments, the three with a bar of their own first."""
    rng = random.Random(7)

    def letters(count: int) -> str:
        return "".join(rng.choice("acgt") for _ in range(count))

    def matrix(rows: int, columns: int) -> list[list[float]]:
        return [[rng.random() for _ in range(columns)] for _ in range(rows)]

    bodies = [[rng.uniform(-10, 10) for _ in range(5)] for _ in range(6)]
    masses = [rng.uniform(0.1, 40) for _ in range(5)]
    distances = [[0 if i == j else rng.randint(1, 1000) for j in range(110)] for i in range(110)]
    signal = [rng.uniform(-1, 1) for _ in range(8192)]
    return {
        "mandelbrot": (160, 120, 120),
        "n_body": (*bodies, masses, 2000, 0.001),
        "levenshtein": (letters(500), letters(480)),
        "sieve": (1_000_000,),
        "matrix_multiply": (matrix(100, 90), matrix(90, 110)),
        "spectral_norm": (100, 4),
        "fannkuch": (8,),
        "collatz": (12_000,),
        "floyd_warshall": (distances,),
        "life": ([[int(rng.random() < 0.3) for _ in range(64)] for _ in range(64)], 12),
        "pi_by_chance": (300_000, 42),
        "fft": (signal, [0.0] * len(signal)),
        "fermat_primes": (8_000,),
    }


def timed(function: Callable[..., Any], given: tuple[Any, ...]) -> tuple[float, str]:
    """Return the seconds of a call on copies of its own, and all that it did, as text."""
    mine = copy.deepcopy(given)
    began = time.perf_counter()
    value = function(*mine)
    took = time.perf_counter() - began
    return took, repr((value, mine))


def main() -> None:
    """Measure and report."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    source = PROGRAMS.read_text()
    accelerator = Accelerator(Engine())
    fast: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    exec(accelerator.compile(ast.parse(source), "<kernels>", fast), fast)
    exec(compile(source, "<kernels>", "exec"), plain)
    rows: list[dict[str, Any]] = []
    for number, (name, given) in enumerate(arguments().items()):
        first_s, expected = timed(fast[name], given)
        ours, theirs = [], []
        for _ in range(rounds):
            for function, times in ((plain[name], theirs), (fast[name], ours)):
                took, what = timed(function, given)
                if what != expected:
                    raise AssertionError(f"{name}: the results differ")
                times.append(took)
        cpython_ms, ours_ms = statistics.median(theirs) * 1e3, statistics.median(ours) * 1e3
        bar = FIRST_BAR if number < FIRST else 1.0
        ratio = cpython_ms / ours_ms
        rows.append(
            {
                "kernel": name,
                "cpython_ms": cpython_ms,
                "ours_ms": ours_ms,
                "first_call_ms": first_s * 1e3,
                "ratio": ratio,
                "bar": f">= {bar:g}: {'met' if ratio >= bar else 'MISSED'}",
            }
        )
    report(rows, accelerator.report.document())


def report(rows: list[dict[str, Any]], counters: dict[str, Any]) -> None:
    """Print the table and write the results."""
    table = Table("kernel", "CPython ms", "ours ms", "first call ms", "ratio", "bar", title="numeric kernels")
    for row in rows:
        figures = [f"{row[key]:.2f}" for key in ("cpython_ms", "ours_ms", "first_call_ms", "ratio")]
        table.add_row(row["kernel"], *figures, row["bar"])
    median = statistics.median(row["ratio"] for row in rows)
    verdict = f">= {MEDIAN_BAR:g}: {'met' if median >= MEDIAN_BAR else 'MISSED'}"
    table.add_section()
    table.add_row("median", "", "", "", f"{median:.2f}", verdict)
    console = Console()
    console.print(table)
    console.print(
        f"compiled: {', '.join(counters['functions_compiled'])}; in CPython: {counters['fallbacks'] or 'none'}"
    )
    RESULTS.mkdir(exist_ok=True)
    document = {
        "question": "numeric kernels",
        **machine(),
        "rows": rows,
        "median_ratio": median,
        "bar": verdict,
        "counters": counters,
    }
    path = RESULTS / "numeric-kernels.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    console.print(f"written to benchmarks/results/{path.name}")


if __name__ == "__main__":
    main()
