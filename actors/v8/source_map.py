"""Reads source maps: from a place in compiled code to the place in its source.

The format is that of https://tc39.es/ecma426/: per line of compiled code,
segments of base-64 variable-length quantities, each relative to the one
before.
"""

from __future__ import annotations

import bisect
from typing import Final

_DIGITS: Final = {
    char: value for value, char in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}
_CONTINUES: Final = 32
_MAX_SHIFT: Final = 30

Segment = tuple[int, int, int]
"""A column of compiled code, then line and column of the source; all from 0."""


class SourceMap:
    """The mappings of one compiled text that came from one source.

    Args:
        mappings: The map's ``mappings`` field.

    Raises:
        ValueError: It is not well-formed.

    Example:
        >>> SourceMap("AAAA;IACI").original(2, 7)
        (2, 7)
    """

    def __init__(self, mappings: str) -> None:
        self._lines: list[list[Segment]] = []
        line = column = 0
        for text in mappings.split(";"):
            segments: list[Segment] = []
            compiled = 0
            for segment in text.split(","):
                fields = _decode(segment)
                if not fields:
                    continue
                compiled += fields[0]
                if len(fields) >= 4:
                    line += fields[2]
                    column += fields[3]
                    segments.append((compiled, line, column))
            self._lines.append(segments)

    def original(self, line: int, column: int) -> tuple[int, int] | None:
        """Return the line and column of the source for those of compiled code, all counted from 1.

        A place between two mapped ones keeps its distance from the one before,
        as far as the source has it on the same line.
        """
        if not 1 <= line <= len(self._lines):
            return None
        segments = self._lines[line - 1]
        at = bisect.bisect_right(segments, column - 1, key=lambda segment: segment[0]) - 1
        if at < 0:
            return None
        compiled, source_line, source_column = segments[at]
        return source_line + 1, source_column + 1 + (column - 1 - compiled)


def _decode(segment: str) -> list[int]:
    """Return the numbers of one segment.

    Example:
        >>> _decode("AAgBC"), _decode("D")
        ([0, 0, 16, 1], [-1])
    """
    numbers: list[int] = []
    value = shift = 0
    for char in segment:
        digit = _DIGITS.get(char)
        if digit is None or shift > _MAX_SHIFT:
            raise ValueError(f"not a source map: {segment[:40]!r}")
        value += (digit & (_CONTINUES - 1)) << shift
        shift += 5
        if not digit & _CONTINUES:
            numbers.append(-(value >> 1) if value & 1 else value >> 1)
            value = shift = 0
    if shift:
        raise ValueError(f"not a source map: {segment[:40]!r}")
    return numbers
