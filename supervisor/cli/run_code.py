"""``runvisor run``: one piece of code, from a file or standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from runvisor.policies.errors import ConfigError, InvalidTask, ProtocolError
from runvisor.policies.language import detect
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import is_file_name
from runvisor.supervisor.cli.live import LiveOutput
from runvisor.supervisor.cli.output import notes, print_json, reserved_stdout
from runvisor.supervisor.cli.policy_table import explained
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.request import AUTO


def run(
    file: Annotated[str, typer.Argument(help="The code; - reads standard input.")],
    language: Annotated[str, typer.Option("--language", "-l", help="Its language, or auto.")] = AUTO,
    inputs: Annotated[str | None, typer.Option("--inputs", "-i", help="JSON that the code sees as inputs.")] = None,
    file_inputs: Annotated[
        list[str] | None, typer.Option("--input", help="NAME=FILE: a file's bytes as one of the inputs.")
    ] = None,
    trust: Annotated[str, typer.Option(help="untrusted, verified or trusted.")] = "untrusted",
    timeout: Annotated[float, typer.Option(help="Seconds it may run.")] = 10.0,
    memory: Annotated[str, typer.Option(help="Memory it may use.")] = "256MB",
    allow_host: Annotated[list[str] | None, typer.Option(help="A host it may reach.")] = None,
    read: Annotated[list[str] | None, typer.Option(help="A path glob it may read.")] = None,
    write: Annotated[list[str] | None, typer.Option(help="A path glob it may write.")] = None,
    give: Annotated[list[Path] | None, typer.Option("--in", help="A file to find under /in.")] = None,
    take: Annotated[Path | None, typer.Option("--out", help="A folder for what is left under /out.")] = None,
    profile: Annotated[str, typer.Option(help="Packages that Python finds loaded: bare, science, ...")] = "",
    objective: Annotated[
        str | None, typer.Option(help='What the choice of a runtime makes small: "mean", "slo 100ms", "cvar 0.95" ...')
    ] = None,
    critical: Annotated[bool, typer.Option("--critical", help="Try no runtime on it merely to learn.")] = False,
    record: Annotated[Path | None, typer.Option(help="Run it deterministically; write a recording here.")] = None,
    observability: Annotated[
        str, typer.Option(help="kernel: have the kernel count what it does; see docs/witness.md.")
    ] = "off",
    explain: Annotated[bool, typer.Option("--explain", help="Say why this runtime was chosen.")] = False,
    address: Annotated[str | None, typer.Option(help="A Ray cluster to join; default is a local one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run one piece of code in the sandbox that suits it."""
    code, language = read_source(file, language)
    permissions = Permissions.from_dict(
        {
            "timeout_s": timeout,
            "memory_bytes": memory,
            "network": {"allowed_hosts": allow_host or []},
            "filesystem": {"read": read or [], "write": write or []},
        }
    )
    given = _inputs(inputs, file_inputs or [])
    live = LiveOutput()
    if record is not None and (give or take is not None or profile):
        raise ConfigError(
            "a recording holds no files and no profile", "--record", "leave --in, --out and --profile out"
        )
    with reserved_stdout(wanted=as_json), _start(address, observability) as supervisor:
        label = "" if file == "-" else Path(file).name
        if record is not None:
            result, recording = supervisor.record(
                code,
                language,
                inputs=given,
                permissions=permissions,
                trust=trust,
                label=label,
                objective=objective,
                critical=critical,
            )
            _write(record, recording.to_bytes())
        else:
            result = supervisor.run(
                code,
                language,
                inputs=given,
                permissions=permissions,
                trust=trust,
                label=label,
                files={path.name: _content(path, "--in") for path in give or ()},
                profile=profile,
                objective=objective,
                critical=critical,
                on_output=None if as_json else live,
            )
        if take is not None:
            _put(result.files, take)
        if as_json:
            print_json(result.to_document())
        else:
            live.finish(result)
            if explain and result.decision is not None:
                notes.print(explained(result.decision))
    raise typer.Exit(result.error.exit_status if result.error else 0)


def _start(address: str | None, observability: str) -> Supervisor:
    match observability:
        case "off":
            return Supervisor.start(address)
        case "kernel":
            return Supervisor.start(address, observability="kernel")
    raise ConfigError(f"{observability!r} is no observability", "--observability", "give off or kernel")


def read_source(file: str, language: str) -> tuple[str | bytes, str]:
    """Return the code in a file, or on standard input for ``-``, and its language as far as the file's name tells.

    Raises:
        InvalidTask: It cannot be read.
    """
    if file == "-":
        data = sys.stdin.buffer.read()
    else:
        try:
            data = Path(file).read_bytes()
        except OSError as error:
            raise InvalidTask(f"{file} cannot be read: {error.strerror}", file, "give the path of a file") from None
    if language == AUTO and file != "-":
        language = detect(data, Path(file).name).language
    try:
        return data.decode(), language
    except UnicodeDecodeError:
        return data, language


def _content(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidTask(f"{path} cannot be read: {error.strerror}", option, "give the path of a file") from None


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "--record", "give another path") from None


def _put(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what came out; the names were checked where they came from, and are checked again."""
    for name, content in files.items():
        if not is_file_name(name):
            raise ProtocolError(f"{name!r} is no name of a file", "files")
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}", "--out", "give another folder") from None


def _inputs(text: str | None, files: list[str]) -> Any:
    """Return what --inputs and --input give together."""
    try:
        inputs = None if text is None else json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--inputs is not JSON: {error}", "--inputs") from None
    if not files:
        return inputs
    if not isinstance(inputs, dict | None):
        raise ConfigError("--input adds to an object, and --inputs is none", "--inputs", "pass a JSON object")
    contents: dict[str, bytes] = {}
    for item in files:
        name, equals, path = item.partition("=")
        if not equals or not name or name in contents or name in (inputs or {}):
            raise ConfigError(f"{item!r} does not name an input of its own", "--input", "write NAME=FILE")
        contents[name] = _content(Path(path), "--input")
    return {**(inputs or {}), **contents}
