"""``runvisor plan``: run an agent's plan and watch it in a live table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from runvisor.policies.errors import InvalidPlan
from runvisor.supervisor.cli.output import console, print_json, reserved_stdout
from runvisor.supervisor.cli.plan_table import PlanTable
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.plan.events import PlanEvent
from runvisor.supervisor.plan.markdown import parse_plan
from runvisor.supervisor.plan.outcome import PlanResult
from runvisor.supervisor.plan.report import write_report


def plan(
    file: Annotated[Path, typer.Argument(help="The plan: Markdown with fenced code.")],
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster to join; default is a local one.")] = None,
    trust: Annotated[str, typer.Option(help="The most trust that its steps may claim.")] = "untrusted",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run a plan: independent steps in parallel, each in its own sandbox."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPlan(f"{file} cannot be read: {error}", str(file), "give the path of a Markdown file") from None
    table = PlanTable(text)
    with reserved_stdout(wanted=as_json):
        if not as_json:
            console.print(f"Starting a supervisor for [bold]{table.title}[/bold] ({len(table.steps)} steps) ...")
        with Supervisor.start(address, trust=trust) as supervisor:
            result = supervisor.plan(text) if as_json else _watched(supervisor, text, table)
            if report is not None:
                report.parent.mkdir(parents=True, exist_ok=True)
                write_report(result, report, parse_plan(text))
            if as_json:
                print_json(result.to_document())
            elif report is not None:
                console.print(f"The report is at [bold]{report.resolve()}[/bold]")
    raise typer.Exit(result.exit_status)


def _watched(supervisor: Supervisor, text: str, table: PlanTable) -> PlanResult:
    """Run the plan and show its table: live in a terminal, once at the end elsewhere."""
    if not console.is_terminal:
        result = supervisor.plan(text, observer=table.note)
        console.print(table)
        return result
    with Live(table, console=console, refresh_per_second=8) as live:

        def show(event: PlanEvent) -> None:
            table.note(event)
            live.refresh()

        return supervisor.plan(text, observer=show)
