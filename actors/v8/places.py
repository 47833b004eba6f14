"""Where in the user's code an error lies, as ``line:column``, from V8's stack texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runvisor.actors.v8.isolate import Failure, Isolate

_PARSE_PLACE: Final = re.compile(r"<anonymous>:(\d+)")
_WRAPPER: Final = "(async()=>{"

Edit = tuple[int, int, int, int]
"""A line, a column in the edited text, how many characters stand there, and how many stood there."""


def is_unparsed(outcome: Mapping[str, Any], filename: str) -> bool:
    """Say whether an outcome is a syntax error of the code itself, so that none of it ran."""
    return bool(outcome.get("syntax")) and f"{filename}:" not in str(outcome.get("stack", ""))


def of_stack(stack: str, filename: str, edits: Sequence[Edit] = ()) -> tuple[str, str]:
    r"""Return the place of an error, and the frames of the user's file.

    Args:
        stack: V8's text.
        filename: What the user's code is called in it.
        edits: What was changed in the code before it ran.

    Example:
        >>> of_stack("Error: x\n    at f (task.js:2:3)\n    at driver (<anonymous>:9:9)", "task.js")
        ('2:3', '    at f (task.js:2:3)')
    """
    place = re.compile(rf"{re.escape(filename)}:(\d+):(\d+)")

    def original(match: re.Match[str]) -> str:
        line, column = int(match[1]), int(match[2])
        return f"{filename}:{line}:{undone(line, column, edits)}"

    frames = [
        place.sub(original, line)
        for line in stack.splitlines()
        if line.lstrip().startswith("at ") and place.search(line)
    ]
    first = place.search(frames[0]) if frames else None
    return (f"{first[1]}:{first[2]}" if first else ""), "\n".join(frames)


def undone(line: int, column: int, edits: Sequence[Edit]) -> int:
    """Return the column, counted from 1, that a place had before the edits of its line.

    Example:
        >>> undone(1, 12, [(1, 1, 8, 0)]), undone(2, 12, [(1, 1, 8, 0)])
        (4, 12)
    """
    shift = 0
    for at_line, at_column, now, before in edits:
        if at_line == line and at_column < column:
            shift += min(now, column - at_column) - before
    return max(1, column - shift)


def of_unparsed(isolate: Isolate, code: str) -> str:
    """Parse the code once more, inside a function that is never called, to learn where it fails."""
    failure = isolate.evaluate(f"{_WRAPPER}{code}\n}})")
    if isinstance(failure, Failure):
        line = _PARSE_PLACE.search(failure.text)
        rows = failure.text.splitlines()
        caret = next((row.index("^") for row in rows if row.strip("^ \t") == "" and "^" in row), 0)
        if line:
            shift = len(_WRAPPER) if line[1] == "1" else 0
            return f"{line[1]}:{max(1, caret + 1 - shift)}"
    return "1:1"
