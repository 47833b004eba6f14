"""``runvisor session``: cells on standard input, each run in the state of those before."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from runvisor.policies.errors import ConfigError
from runvisor.policies.permissions import Permissions
from runvisor.supervisor.cli.live import LiveOutput
from runvisor.supervisor.cli.output import notes, print_json, reserved_stdout
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.session import Session


def session(
    language: Annotated[str, typer.Argument(help="python, javascript or typescript.")] = "python",
    trust: Annotated[str, typer.Option(help="untrusted, verified or trusted.")] = "untrusted",
    timeout: Annotated[float, typer.Option(help="Seconds that a cell may run.")] = 60.0,
    memory: Annotated[str, typer.Option(help="Memory of the session.")] = "256MB",
    idle: Annotated[float | None, typer.Option(help="Seconds after which it ends unused.")] = None,
    profile: Annotated[str, typer.Option(help="Packages that Python finds loaded: bare, science, ...")] = "",
    save: Annotated[Path | None, typer.Option(help="Write a checkpoint there at the end.")] = None,
    restore: Annotated[Path | None, typer.Option(help="Begin with a checkpoint's cells.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster to join; default is a local one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document per cell.")] = False,
) -> None:
    """Run cells from standard input; an empty line ends a cell, the end of the input the session.

    Ctrl-C interrupts the running cell; the state stays.
    """
    permissions = Permissions.from_dict({"timeout_s": timeout, "memory_bytes": memory})
    status = 0
    with reserved_stdout(wanted=as_json), Supervisor.start(address) as supervisor:
        if restore is not None:
            opened = supervisor.restore_session(_read(restore))
        else:
            opened = supervisor.session(
                language, permissions=permissions, trust=trust, profile=profile, idle_timeout_s=idle
            )
        with opened as book:
            for code in cells(sys.stdin):
                status = _run(book, code, as_json)
            if save is not None:
                save.write_text(json.dumps(book.checkpoint()))
    raise typer.Exit(status)


def cells(lines: Iterable[str]) -> Iterator[str]:
    r"""Cut text into cells at its empty lines.

    Example:
        >>> list(cells(["a = 1\n", "a\n", "\n", "\n", "b\n"]))
        ['a = 1\na\n', 'b\n']
    """
    cell = ""
    for line in lines:
        if line.strip():
            cell += line
        elif cell:
            yield cell
            cell = ""
    if cell:
        yield cell


def _run(book: Session, code: str, as_json: bool) -> int:
    live = LiveOutput()
    try:
        result = book.run(code, on_output=None if as_json else live)
    except KeyboardInterrupt:
        notes.print("interrupted")
        return 130
    if as_json:
        print_json(result.to_document())
    else:
        live.finish(result)
    if result.error is not None and result.error.details.get("session") == "ended":
        raise typer.Exit(result.error.exit_status)
    return result.error.exit_status if result.error else 0


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no checkpoint: {error}", str(path), "give a file that --save wrote") from None
