"""What a guest's exception says of the guest's own lines, and of nobody else's."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any, Final

_MAX_EXTRACTED: Final = 2000
_HEAD: Final = 8
_TAIL: Final = 14
_libraries: Final[list[str]] = []


class _UserStack(traceback.StackSummary):
    """Frames of which the middle is left out when there are very many."""

    def format(self, **options: Any) -> list[str]:
        """Format as usual; runs of one and the same line are already one entry there."""
        entries = super().format(**options)
        if len(entries) > _HEAD + _TAIL:
            entries[_HEAD:-_TAIL] = [f"  [{len(entries) - _HEAD - _TAIL} more frames]\n"]
        return entries


def describe(error: BaseException, is_source: Callable[[str], bool]) -> dict[str, str]:
    """Say what an exception was: its last line, its place, and the user's frames.

    Causes, contexts and the members of groups are treated alike.

    Args:
        error: What the guest raised; even its ``__str__`` may be hostile.
        is_source: Whether a file name is that of a task or a cell.

    Returns:
        ``what``, ``where`` (``line 3``, or ``cell 2, line 3``; empty when none
        of the user's lines was running) and ``traceback``.
    """
    kind = type(error).__name__
    try:
        summary = traceback.TracebackException.from_exception(
            error, limit=-_MAX_EXTRACTED, compact=True, lookup_lines=False
        )
        for part in _parts(summary):
            part.stack = _UserStack(frame for frame in part.stack if _is_users(frame.filename, is_source))
        frames = [frame for frame in summary.stack if is_source(frame.filename)]
        where = _place(frames[-1]) if frames else ""
        return {"what": f"{kind}: {_message(error)}", "where": where, "traceback": "".join(summary.format())}
    except BaseException:
        return {"what": f"{kind}: (it cannot be shown)", "where": "", "traceback": ""}


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "(its message cannot be shown)"


def _place(frame: traceback.FrameSummary) -> str:
    name = frame.filename.strip("<>")
    return f"{name}, line {frame.lineno}" if name.startswith("cell ") else f"line {frame.lineno}"


def _is_users(filename: str, is_source: Callable[[str], bool]) -> bool:
    """Also modules that the guest wrote or brought along: whatever lies in no library's folder."""
    return is_source(filename) or (filename.startswith("/") and not filename.startswith(tuple(_libraries)))


def note_libraries() -> None:
    """Remember where libraries lie before a guest can change it."""
    folders = {sys.prefix, sys.base_prefix, *(folder for folder in sys.path if folder)}
    _libraries[:] = sorted(folder.rstrip("/") + "/" for folder in folders)


def _parts(summary: traceback.TracebackException) -> list[traceback.TracebackException]:
    parts: list[traceback.TracebackException] = []
    seen: set[int] = set()
    pending: list[traceback.TracebackException | None] = [summary]
    while pending:
        part = pending.pop()
        if part is not None and id(part) not in seen:
            seen.add(id(part))
            parts.append(part)
            pending += [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]
    return parts
