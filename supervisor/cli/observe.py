"""``runvisor observe``: what a running process asks of the kernel, as a table and a chart."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from runvisor.policies.errors import ConfigError
from runvisor.policies.language import detect
from runvisor.policies.observations import BUILT_INS, ObservationRequest, ObservedTable, shown
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.supervisor.cli.chart import bar_table, draw
from runvisor.supervisor.cli.output import console, notes, print_json, print_result, reserved_stdout, visible
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.observing import observation_of

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|)")
_UNITS: Final = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0}
_TICK_S: Final = 0.1
_ENDS: Final = {"time": "", "target": "; the process has ended", "stopped": "; stopped early"}


def observe(
    what: Annotated[
        str | None, typer.Argument(help="One of: " + "; ".join(f"{k}: {v}" for k, v in BUILT_INS.items()))
    ] = None,
    pid: Annotated[int | None, typer.Option(help="The process to observe, with its threads and descendants.")] = None,
    run: Annotated[Path | None, typer.Option(help="Or code to run, and to observe while it runs.")] = None,
    program: Annotated[Path | None, typer.Option(help="Instead of those, an event program of your own in C.")] = None,
    duration: Annotated[str, typer.Option("--for", help="How long, at most: 500ms, 5s, 2m.")] = "5s",
    only: Annotated[bool, typer.Option("--only", help="The process alone, without its descendants.")] = False,
    rows: Annotated[int, typer.Option(help="Rows to show; 0 is all.")] = 25,
    png: Annotated[Path | None, typer.Option(help="Write the chart here.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster to join; default is a local one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Observe a running process for a while, without stopping or changing it, or code from start to end.

    Ctrl-C ends it early.
    """
    if (pid is None) == (run is None):
        raise ConfigError("observe either a process or code", "--pid", "give --pid or --run")
    # What is wrong is refused before anything is started.
    source = read_text(program, "--program") if program is not None else None
    asked = observation_of(what, pid or os.getpid(), read_duration(duration), follow=not only, program=source)
    code = read_code(run) if run is not None else None
    result: Result | None = None
    with reserved_stdout(wanted=as_json), Supervisor.start(address) as supervisor:
        if code is None:
            table = _observe(supervisor, asked, shows_progress=not as_json and notes.is_terminal)
        else:
            permissions = Permissions(timeout_s=asked.duration_s)
            result, table = supervisor.observe_run(what, *code, program=source, permissions=permissions, label=str(run))
        if png is not None:
            _write(png, table)
        if as_json:
            document = table.to_document()
            print_json(document if result is None else {**document, "result": result.to_document()})
        else:
            if result is not None:
                print_result(result)
            print_table(table, rows)
    raise typer.Exit(result.error.exit_status if result is not None and result.error is not None else 0)


def read_code(file: Path) -> tuple[str, str]:
    """Return a file's text and its language.

    Raises:
        ConfigError: It cannot be read, or its language not be told.
    """
    text = read_text(file, "--run")
    return text, detect(text.encode(), file.name).language


def read_text(file: Path, option: str) -> str:
    """Return a file's text.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", option, "give the path of a source file") from None


def read_duration(text: str) -> float:
    """Return a duration in seconds.

    Raises:
        ConfigError: It is none.

    Example:
        >>> read_duration("500ms"), read_duration("2m"), read_duration("3")
        (0.5, 120.0, 3.0)
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text[:40]!r} is no duration", "--for", "write 500ms, 5s or 2m")
    return float(match[1]) * _UNITS[match[2]]


def print_table(table: ObservedTable, rows: int) -> None:
    """Print a table for people: its first rows, then the chart of a histogram."""
    ended = f"{shown(table.duration_s, 'seconds')}{_ENDS[table.ended]}"
    console.print(Text(f"{table.what} of process {table.pid}, {ended}", style="italic"))  # a title is cut to the table
    grid = Table()
    for column in table.columns:
        grid.add_column(column.name.removesuffix("_s"), justify="left" if column.kind == "text" else "right")
    shown_rows = table.rows if rows <= 0 or table.is_histogram else table.rows[:rows]
    for row in shown_rows:
        cells = (shown(cell, column.kind) for cell, column in zip(row, table.columns, strict=True))
        grid.add_row(*(Text(visible(cell), overflow="fold") for cell in cells))
    console.print(grid)
    if table.is_histogram or table.what == "syscalls":
        console.print(bar_table(table))
    if len(shown_rows) < len(table.rows):
        notes.print(Text(f"{len(table.rows) - len(shown_rows)} more rows; --rows 0 shows all", style="dim"))
    if table.lost:
        notes.print(Text(f"{table.lost} events found a full table and are not shown", style="yellow"))


def _observe(supervisor: Supervisor, asked: ObservationRequest, *, shows_progress: bool) -> ObservedTable:
    what = asked.what if asked.program is None else None
    observation = supervisor.observing(
        what, pid=asked.pid, duration_s=asked.duration_s, follow=asked.follow, program=asked.program
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True, disable=not shows_progress) as progress:
        task = progress.add_task(f"observing process {asked.pid}", total=asked.duration_s)
        while True:
            try:
                return observation.result(_TICK_S)
            except TimeoutError:
                if observation.since is not None:
                    progress.update(task, completed=time.monotonic() - observation.since)
            except KeyboardInterrupt:  # the first one ended it; its table comes at once
                return observation.result()


def _write(path: Path, table: ObservedTable) -> None:
    picture = draw(table)
    if picture is None:
        raise ConfigError("there is no matplotlib to draw with", "--png", "pip install 'runvisor[science]'")
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "--png", "give another path") from None
