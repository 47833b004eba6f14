"""``runvisor replay``: run a recorded execution again, and verify it bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from runvisor.policies.errors import InvalidTask
from runvisor.policies.permissions import Permissions
from runvisor.policies.recording import MAX_BYTES, REPLAY_CEILING, Recording
from runvisor.supervisor.cli.output import console, notes, print_json, reserved_stdout, visible
from runvisor.supervisor.client import Supervisor


def replay(
    file: Annotated[Path, typer.Argument(help="What `runvisor run --record` wrote.")],
    timeout: Annotated[float, typer.Option(help="Seconds it may run at most.")] = REPLAY_CEILING.timeout_s,
    memory: Annotated[str, typer.Option(help="Memory it may use at most.")] = "1GB",
    address: Annotated[str | None, typer.Option(help="A Ray cluster to join; default is a local one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run a recorded execution again; exit with 0 if it is the same to the bit, else with 1."""
    recording = Recording.from_bytes(_read(file))
    asked = Permissions.from_dict({"timeout_s": timeout, "memory_bytes": memory})
    ceiling = replace(REPLAY_CEILING, timeout_s=asked.timeout_s, memory_bytes=asked.memory_bytes)
    recording.task_within(ceiling)  # refused before anything is started
    with reserved_stdout(wanted=as_json), Supervisor.start(address) as supervisor:
        outcome = supervisor.replay(recording, ceiling=ceiling)
        if as_json:
            print_json(
                {
                    "identical": outcome.is_identical,
                    "differences": list(outcome.differences),
                    "notes": list(outcome.notes),
                    "instructions": outcome.result.usage.instructions,
                }
            )
        else:
            for note in outcome.notes:
                notes.print(Text(visible(note), style="yellow"))
            for difference in outcome.differences:
                console.print(Text(visible(difference)))
            verdict = "identical" if outcome.is_identical else "different"
            console.print(f"{verdict}: {outcome.result.usage.instructions} instructions")
    raise typer.Exit(0 if outcome.is_identical else 1)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            return source.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidTask(f"{file} cannot be read: {error.strerror}", str(file), "give the path of a file") from None
