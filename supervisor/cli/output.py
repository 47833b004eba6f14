"""What commands print: tables for people, one JSON document for programs.

Ray's own processes write to the terminal's fd 1 whatever its log settings, so
``--json`` keeps the real stdout for itself and sends everyone else to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from runvisor.policies.errors import RunvisorError
from runvisor.policies.result import Result

console = Console()
notes = Console(stderr=True)
"""Where everything goes that is not the command's answer."""

_reserved: TextIO | None = None


@contextmanager
def reserved_stdout(*, wanted: bool) -> Iterator[None]:
    """Keep fd 1 for `print_json` alone while the block runs.

    Args:
        wanted: False leaves everything as it is.
    """
    global _reserved
    if not wanted:
        yield
        return
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(own), "w") as stream:
            _reserved = stream
            yield
    finally:
        _reserved = None
        os.dup2(own, 1)
        os.close(own)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document on one line."""
    stream = _reserved or sys.stdout
    stream.write(json.dumps(document, default=str) + "\n")
    stream.flush()


def print_error(error: RunvisorError, *, as_json: bool) -> None:
    """Say what went wrong, where, and what to do."""
    if as_json:
        print_json({"error": {"type": type(error).__name__, "message": str(error), **error.details}})
        return
    notes.print(Text(f"{type(error).__name__}: ", style="bold red") + Text(str(error)))
    for arm, reason in dict(error.details.get("excluded") or {}).items():
        notes.print(Text(f"  {arm}: {reason}"))


def print_result(result: Result) -> None:
    """Print a result for a person: the guest's own output first, then value, then how it ran."""
    # The guest wrote this: shown as text, with control characters made visible.
    if result.stdout:
        console.print(Text(visible(result.stdout)), end="" if result.stdout.endswith("\n") else "\n")
    if result.stderr:
        notes.print(Text(visible(result.stderr), style="yellow"), end="" if result.stderr.endswith("\n") else "\n")
    if result.error is not None:
        notes.print(Text(visible(str(result.error.details.get("traceback", ""))), style="dim"), end="")
        print_error(result.error, as_json=False)
    elif result.value is not None:
        console.print(Text(visible(repr(result.value))))
    usage = result.usage
    peak = f", {usage.peak_memory_bytes / 2**20:.1f} MiB" if usage.peak_memory_bytes is not None else ""
    notes.print(
        Text(
            f"{result.runtime}/{result.variant} · {usage.wall_s * 1e3:.2f} ms{peak} · {result.isolation.engine}"
            + (f" · {result.isolation.note}" if result.isolation.note else ""),
            style="dim",
        )
    )
    print_witness(result)


def print_witness(result: Result) -> None:
    """Print what the kernel counted, or why it did not; nothing if nobody asked."""
    kernel = result.usage.kernel
    if kernel is None:
        if result.isolation.witness:
            notes.print(Text(f"kernel: {result.isolation.witness}", style="dim"))
        return
    notes.print(
        Text(
            f"kernel: {kernel.syscalls} system calls · {kernel.cpu_s * 1e3:.2f} ms CPU · {kernel.switches} switches · "
            f"{kernel.read_bytes} B read · {kernel.written_bytes} B written",
            style="dim",
        )
    )
    for verb, attempts in (("refused by the filter", kernel.refused), ("denied", kernel.denied)):
        if attempts:
            listed = ", ".join(f"{attempt.call} {attempt.error} x{attempt.count}" for attempt in attempts)
            notes.print(Text(f"kernel: {verb}: {listed}", style="yellow"))


def visible(text: str) -> str:
    r"""Replace control characters, so that a guest cannot steer the terminal.

    Example:
        >>> visible("a\x1b[2Jb\n")
        'a␛[2Jb\n'
    """
    return "".join(
        character if character in "\n\t" or character.isprintable() else _picture(character) for character in text
    )


def _picture(character: str) -> str:
    code = ord(character)
    return (
        chr(0x2400 + code) if code < 0x20 else "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
    )
