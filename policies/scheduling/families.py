"""Families: tasks that are alike enough to learn of one from another."""

from __future__ import annotations

from typing import Final

from runvisor.policies.scheduling.base import MAX_NAME_CHARS
from runvisor.policies.scheduling.sketch import sketch_of

_SIZES: Final = ((256, "xs"), (2_048, "s"), (16_384, "m"))
_CLASSES: Final = 4
_MOST_WORK: Final = 24


def family_of(language: str, code: str | bytes, asked: float = 0.0) -> str:
    r"""Name the family of a task: its language, the size and shape of its code, what it imports.

    Names are at most `MAX_NAME_CHARS` long and hold nothing but letters,
    digits and ``_ : + . -`` as far as the code decides.

    Args:
        language: Canonical.
        code: Source, or the bytes of a module.
        asked: What its inputs ask for; see `runvisor.policies.scheduling.features.asked_by`.

    Example:
        >>> family_of("python", "f()"), family_of("python", "f()", asked=19.9)
        ('python:xs:c1', 'python:xs:c1:n9')
        >>> family_of("python", "1+1"), family_of("wasm", bytes(100_000))
        ('python:xs', 'wasm:l')
        >>> family_of("python", "import math\nfor i in range(100000): print(math.sqrt(i))")
        'python:xs:l1.1:c1:e5:n8:math'
    """
    size = len(code)
    name = f"{language}:{next((word for limit, word in _SIZES if size <= limit), 'l')}"
    sketch = sketch_of(code)
    if sketch.loops:
        name += f":l{_class(sketch.loops)}.{sketch.nesting}"
    if sketch.calls:
        name += f":c{(_class(sketch.calls) + 1) // 2}"
    if sketch.magnitude >= 3:
        name += f":e{min(9, (sketch.magnitude - 1) // 2 * 2 + 1)}"  # 3, 5, 7 or 9
    if work := int(sketch.last_numbers + asked) // 2:
        name += f":n{min(work, _MOST_WORK)}"
    if sketch.imports:
        name += f":{'+'.join(sketch.imports)}"
    return name[:MAX_NAME_CHARS]


def _class(count: int) -> int:
    """0, 1, 2 to 3, 4 to 7, from 8: each a class."""
    return min(_CLASSES, count.bit_length())
