"""Path patterns: which files a grant names. Pure text; nothing here looks at a disk.

``*`` and ``?`` stay inside one name, ``**`` crosses folders, ``[abc]`` is a set
of characters. Names that begin with a dot are matched like any other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from runvisor.policies.errors import InvalidPermissions

_MAGIC: Final = frozenset("*?[")
_ANY_DEPTH: Final = "**"
_WILDCARD: Final = re.compile(r"\*+|\?|\[[!^]?[^]]+\]|.", re.DOTALL)

_RANGE: Final = re.compile(r"(.)(?:-(.))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PathPattern:
    """An absolute pattern, split where its wildcards begin.

    Example:
        >>> PathPattern.parse("/data/in/*.csv")
        PathPattern(base='/data/in', names=('*.csv',))
        >>> PathPattern.parse("/data/**").is_folder, PathPattern.parse("/data/a.csv").is_literal
        (True, True)
    """

    base: str
    """The path up to the first name with a wildcard."""
    names: tuple[str, ...]
    """The names from there on, with their wildcards; empty when there is none."""

    @classmethod
    def parse(cls, text: str, where: str = "filesystem") -> PathPattern:
        """Split a pattern.

        Args:
            text: An absolute path with or without wildcards.
            where: Which permission it is, for the error.

        Raises:
            InvalidPermissions: It is relative, climbs, or names the root folder.
        """
        names = [name for name in text.split("/") if name not in ("", ".")]
        if not text.startswith("/") or ".." in names:
            raise InvalidPermissions(f"{text!r} is no absolute path", where, "write it from / on, without '..'")
        first = next((i for i, name in enumerate(names) if _MAGIC & set(name)), len(names))
        if first == 0:
            raise InvalidPermissions(f"{text!r} names the whole machine", where, "name a folder: /folder/**")
        return cls("/" + "/".join(names[:first]), tuple(names[first:]))

    @property
    def is_literal(self) -> bool:
        """It has no wildcard: one file, or one folder with all that is in it."""
        return not self.names

    @property
    def is_folder(self) -> bool:
        """It is a whole folder."""
        return self.names == (_ANY_DEPTH,)

    def matches(self, path: str) -> bool:
        """Say whether a path below the base, without a leading slash, is meant.

        Example:
            >>> pattern = PathPattern.parse("/data/**/*.csv")
            >>> pattern.matches("a.csv"), pattern.matches("x/y/a.csv"), pattern.matches("a.txt")
            (True, True, False)
        """
        return not self.names or _compiled(self.names).fullmatch(path) is not None

    def may_hold_matches(self, depth: int) -> bool:
        """Say whether anything ``depth`` folders below the base can match."""
        return _ANY_DEPTH in self.names or depth < len(self.names) or not self.names


@lru_cache(maxsize=256)
def _compiled(names: tuple[str, ...]) -> re.Pattern[str]:
    parts: list[str] = []
    for index, name in enumerate(names):
        last = index == len(names) - 1
        if name == _ANY_DEPTH:
            parts.append(".+" if last else "(?:[^/]+/)*")
        else:
            parts.append(_one_name(name) + ("" if last else "/"))
    return re.compile("".join(parts), re.DOTALL)


def _one_name(name: str) -> str:
    """Return the expression of one name's wildcards, none of which matches a slash."""
    return _WILDCARD.sub(_expression, name) if _MAGIC & set(name) else re.escape(name)


def _expression(match: re.Match[str]) -> str:
    text = match[0]
    if text.startswith("*"):
        return "[^/]*"
    if text == "?":
        return "[^/]"
    if len(text) > 1:
        negated = text[1] in "!^" and len(text) > 3  # "[!]" holds a plain exclamation mark
        inside = _RANGE.sub(_character_or_range, text[2 if negated else 1 : -1])
        return f"(?!/)[{'^' if negated else ''}{inside}]"
    return re.escape(text)


def _character_or_range(match: re.Match[str]) -> str:
    first, last = match[1], match[2] or match[1]
    low, high = min(first, last), max(first, last)
    return f"\\U{ord(low):08x}-\\U{ord(high):08x}"
