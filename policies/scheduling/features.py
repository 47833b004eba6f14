"""Numbers about a task that say how much work it may be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from runvisor.policies.scheduling.sketch import sketch_of
from runvisor.policies.values import Value

_MOST_VALUES: Final = 8
_MOST_ASKED: Final = 1 << 62
FEATURES: Final = ("log_code", "log_input", "loops", "nesting", "log_literal", "numpy", "asked")
"""What each number of `features_of` is, in order: natural logarithms of sizes, each of the order of one."""


def features_of(language: str, code: str | bytes, input_bytes: int = 0, asked: float = 0.0) -> tuple[float, ...]:
    """Return the features of a task, in the order of `FEATURES`.

    Args:
        language: Canonical.
        code: Source, or the bytes of a module.
        input_bytes: Size of its inputs.
        asked: What they ask for; see `asked_by`.

    Example:
        >>> len(features_of("python", "for i in range(10**6): pass")) == len(FEATURES)
        True
    """
    sketch = sketch_of(code)
    return (
        math.log((len(code) + 64) / 1024) / 2,
        math.log1p(max(0, input_bytes) / 1024) / 2,
        math.log1p(sketch.loops),
        float(sketch.nesting),
        sketch.magnitude / 3,
        1.0 if language == "python" and "numpy" in sketch.imports else 0.0,
        (sketch.last_numbers + asked) / 8,
    )


def asked_by(inputs: Value) -> float:
    """Return the binary logarithms of the whole numbers in the inputs, added up: how much work they may ask for.

    The inputs themselves, or what a mapping or sequence of them holds directly, count; at most eight of them.

    Example:
        >>> asked_by(7), asked_by({"n": 1023, "name": "x"}), asked_by(None)
        (3.0, 10.0, 0.0)
    """
    values: Iterable[object] = (inputs,)
    if isinstance(inputs, Mapping):
        values = inputs.values()
    elif isinstance(inputs, list | tuple):
        values = inputs
    numbers = (value for value in islice(values, _MOST_VALUES) if type(value) is int)
    return math.fsum(math.log2(1 + min(abs(number), _MOST_ASKED)) for number in numbers)
