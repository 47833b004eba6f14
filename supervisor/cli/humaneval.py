"""``runvisor humaneval``: 164 reference solutions must pass, 164 empty ones must not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runvisor.supervisor.cli.output import console, notes, print_json, reserved_stdout
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.humaneval import Problem, Score, problems, score

_BROKEN_MAY_PASS: Final = 1
"""One problem's tests accept None where nothing is asked of the function."""


def humaneval(
    limit: Annotated[int, typer.Option(help="How many problems; 0 is all.")] = 0,
    parallel: Annotated[int, typer.Option(help="How many at once.")] = 4,
    address: Annotated[str | None, typer.Option(help="A Ray cluster to join; default is a local one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run the HumanEval problems as untrusted Python, right and broken."""
    chosen = problems()[: limit or None]
    with reserved_stdout(wanted=as_json), Supervisor.start(address) as supervisor:
        supervisor.run("1 + 1", "python")  # the pool starts on first use; that is not what is measured
        right = _run(supervisor, chosen, "reference solutions", broken=False, parallel=parallel)
        broken = _run(supervisor, chosen, "bodies replaced by return None", broken=True, parallel=parallel)
        if as_json:
            print_json({"reference": _document(right), "broken": _document(broken)})
        else:
            _print(right, broken)
    as_expected = right.passed == right.total and broken.passed <= _BROKEN_MAY_PASS
    raise typer.Exit(0 if as_expected else 1)


def _run(supervisor: Supervisor, chosen: list[Problem], title: str, *, broken: bool, parallel: int) -> Score:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes) as progress:
        bar = progress.add_task(title, total=len(chosen))
        return score(supervisor, chosen, broken=broken, max_parallel=parallel, on_done=lambda _: progress.advance(bar))


def _document(result: Score) -> dict[str, Any]:
    summary = {key: value for key, value in asdict(result).items() if key != "latencies_s"}
    return {
        **summary,
        "executions_per_s": result.executions_per_s,
        "p50_ms": result.latency_ms(0.5),
        "p99_ms": result.latency_ms(0.99),
    }


def _print(right: Score, broken: Score) -> None:
    table = Table("run", "passed", "executions/s", "p50 ms", "p99 ms", title="HumanEval, untrusted Python")
    for name, result in (("reference solutions", right), ("return None", broken)):
        table.add_row(
            name,
            f"{result.passed} of {result.total}",
            f"{result.executions_per_s:.1f}",
            f"{result.latency_ms(0.5):.2f}",
            f"{result.latency_ms(0.99):.2f}",
        )
    console.print(table)
    for line in right.failed:
        console.print(f"  {line}", markup=False)
