"""What a glance at a program tells of its work: loops, calls, numbers, imports.

A glance, not a parse: it must be cheap for every task and indifferent to
errors. Nothing that it finds widens or narrows what a task may do.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

MAX_LOOKED_AT: Final = 16_384
"""Characters that are looked at; size classes go by the whole code."""
_MAX_IMPORTS: Final = 4
_MAX_NESTING: Final = 4
_MAX_MAGNITUDE: Final = 12
_MAX_LAST_LINE: Final = 200
_MAX_NUMBERS: Final = 8
_MAX_POWER: Final = 64.0
_NUMBERS: Final = re.compile(r"(?<![\w.])\d{1,18}(?![\w.])")
_LOOPS: Final = ("for ", "for(", "while", "=>")
_LOOP_LINES: Final = re.compile(r"\n([ \t]*)(?:for|while)\b")
_IMPORTS: Final = re.compile(r"\n(?:import|from|use|#include)[ \t<\"'{*(]+([A-Za-z_][A-Za-z0-9_]{0,23})")
_POWERS: Final = re.compile(r"\*\* ?(\d{1,2})(?!\w)")
_EXPONENTS: Final = re.compile(r"(?<!\w)\de(\d{1,2})(?!\w)")


def _class_of(byte: int) -> int:
    char = chr(byte)
    if char in "0123456789":
        return ord("0")
    if char in "eE":
        return ord("e")
    return ord("f") if char.isalpha() or char in "._" else ord(" ")


_CLASSES: Final = bytes(map(_class_of, range(256)))
"""Digits become ``0``, what makes a digit part of a name or fraction ``f`` or ``e``, all else a space."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """What was seen."""

    loops: int = 0
    """Loops, comprehensions and functions for each element."""
    nesting: int = 0
    """How deep loops lie in each other, by their indentation."""
    calls: int = 0
    """Opening parentheses."""
    magnitude: int = 0
    """Decimal exponent of the largest whole number that is written out, from 100."""
    last_numbers: float = 0.0
    """Powers of two of the whole numbers in the last line together: where a program calls what it defined, how
    much work it asks for."""
    imports: tuple[str, ...] = ()
    """The first names that are imported, in alphabetical order."""


_NOTHING: Final = Sketch()


def sketch_of(code: str | bytes) -> Sketch:
    r"""Look at a program; bytes, such as a module's, show nothing.

    Example:
        >>> sketch_of("import math\nfor i in range(10**6):\n  for j in range(7): pass")
        Sketch(loops=2, nesting=2, calls=2, magnitude=6, last_numbers=3.0, imports=('math',))
    """
    if isinstance(code, bytes):
        return _NOTHING
    return _look(code[:MAX_LOOKED_AT])


@lru_cache(256)
def _look(text: str) -> Sketch:
    nesting, imports = _by_line(text)
    loops = sum(map(text.count, _LOOPS))
    return Sketch(loops, nesting, text.count("("), _magnitude(text), _last_numbers(text), imports)


def _last_numbers(text: str) -> float:
    """Return the sum of the binary logarithms of the whole numbers in the last line, if that calls something."""
    line = text.rstrip()[-_MAX_LAST_LINE:].rpartition("\n")[2]
    if "(" not in line:
        return 0.0
    numbers = _NUMBERS.findall(line.replace("_", ""))[:_MAX_NUMBERS]
    return min(_MAX_POWER, math.fsum(math.log2(1 + int(number)) for number in numbers))


def _by_line(text: str) -> tuple[int, tuple[str, ...]]:
    """Return how deep loops nest, and what is imported."""
    lines = "\n" + text
    around: list[int] = []
    nesting = 0
    for indent in _LOOP_LINES.findall(lines):
        depth = len(indent)
        while around and around[-1] >= depth:
            around.pop()
        around.append(depth)
        nesting = max(nesting, len(around))
    imports = dict.fromkeys(_IMPORTS.findall(lines))
    return min(nesting, _MAX_NESTING), tuple(sorted(list(imports)[:_MAX_IMPORTS]))


def _magnitude(text: str) -> int:
    """Return the exponent of the largest whole number from 100; searching for runs of digits is fastest."""
    data = b" " + text.replace("_", "").encode("latin-1", "replace").translate(_CLASSES)
    digits = 3 if b" 000" in data else 1
    while 1 < digits <= _MAX_MAGNITUDE and b" " + b"0" * (digits + 1) in data:
        digits += 1
    powers = [digits - 1]
    if "**" in text:
        powers += [
            int(m[1]) for m in _POWERS.finditer(text) if text[m.start() - 2 : m.start()].rstrip(" ")[-1:].isdigit()
        ]
    if b" 0e0" in data:
        powers += map(int, _EXPONENTS.findall(text))
    return min(_MAX_MAGNITUDE, max(powers))
