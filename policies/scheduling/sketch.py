"""What a glance at a program tells of its work: loops, calls, numbers, imports.

A glance, not a parse: it must be cheap for every task and indifferent to
errors. Nothing that it finds widens or narrows what a task may do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

MAX_LOOKED_AT: Final = 16_384
"""Characters that are looked at; size classes go by the whole code."""
_MAX_IMPORTS: Final = 4
_MAX_NESTING: Final = 4
_MAX_MAGNITUDE: Final = 12
_LOOPS: Final = ("for ", "for(", "while ", "while(", "loop {", ".map(", ".forEach(")
_LOOP_STARTS: Final = ("for ", "for(", "while ", "while(", "loop ", "async for ", "} while")
_IMPORT_STARTS: Final = ("import ", "from ", "use ", "#include")
_NAME: Final = re.compile(r"[a-z#]+[\s(<\"'{*]+([A-Za-z_][A-Za-z0-9_]{0,23})")
_POWER: Final = re.compile(r"\d(?:e| ?\*\* ?)(\d{1,2})(?!\w)")


def _class_of(byte: int) -> int:
    char = chr(byte)
    if char in "0123456789":
        return ord("0")
    return ord("e") if char.isalpha() or char in "._" else ord(" ")


_CLASSES: Final = bytes(map(_class_of, range(256)))
"""Digits become ``0``, what makes a digit part of a name or fraction ``e``, all else a space."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """What was seen."""

    loops: int = 0
    """Loops, comprehensions and their like."""
    nesting: int = 0
    """How deep loops lie in each other, by their indentation."""
    calls: int = 0
    """Opening parentheses."""
    magnitude: int = 0
    """Decimal exponent of the largest whole number that is written out."""
    imports: tuple[str, ...] = ()
    """The first names that are imported, in alphabetical order."""


_NOTHING: Final = Sketch()


def sketch_of(code: str | bytes) -> Sketch:
    r"""Look at a program; bytes, such as a module's, show nothing.

    Example:
        >>> sketch_of("import math\nfor i in range(10**6):\n  for j in range(9): pass")
        Sketch(loops=2, nesting=2, calls=2, magnitude=6, imports=('math',))
    """
    if isinstance(code, bytes):
        return _NOTHING
    return _look(code[:MAX_LOOKED_AT])


@lru_cache(256)
def _look(text: str) -> Sketch:
    nesting, imports = _by_line(text)
    return Sketch(sum(map(text.count, _LOOPS)), nesting, text.count("("), _magnitude(text), imports)


def _by_line(text: str) -> tuple[int, tuple[str, ...]]:
    """Return how deep loops nest, and what is imported."""
    imports: list[str] = []
    around: list[int] = []
    nesting = 0
    for line in text.split("\n"):
        body = line.lstrip()
        if body.startswith(_LOOP_STARTS):
            depth = len(line) - len(body)
            while around and around[-1] >= depth:
                around.pop()
            around.append(depth)
            nesting = max(nesting, len(around))
        elif body.startswith(_IMPORT_STARTS) and len(imports) < _MAX_IMPORTS:
            name = _NAME.match(body)
            if name is not None and name[1] not in imports:
                imports.append(name[1])
    return min(nesting, _MAX_NESTING), tuple(sorted(imports))


def _magnitude(text: str) -> int:
    """Return the exponent of the largest whole number; searching for runs of digits is faster than a pattern."""
    data = b" " + text.replace("_", "").encode("latin-1", "replace").translate(_CLASSES)
    digits = 1
    while digits <= _MAX_MAGNITUDE and b" " + b"0" * (digits + 1) in data:
        digits += 1
    powers = _POWER.findall(text) if "**" in text or b"0e0" in data else ()
    return min(_MAX_MAGNITUDE, max(digits - 1, *map(int, powers)) if powers else digits - 1)
