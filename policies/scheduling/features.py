"""Numbers about a task that say how much work it may be."""

from __future__ import annotations

import math
from typing import Final

from runvisor.policies.scheduling.sketch import sketch_of

FEATURES: Final = ("log_code", "log_input", "loops", "nesting", "log_literal", "numpy")
"""What each number of `features_of` is, in order: natural logarithms of sizes, each of the order of one."""


def features_of(language: str, code: str | bytes, input_bytes: int = 0) -> tuple[float, ...]:
    """Return the features of a task, in the order of `FEATURES`.

    Args:
        language: Canonical.
        code: Source, or the bytes of a module.
        input_bytes: Size of its inputs.

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
    )
