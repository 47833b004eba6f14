"""Other distributions from standard normal draws: policies make no randomness of their own."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

_PARTS: Final = 1 << 22
_NORMAL: Final = NormalDist()


def uniform(draw: float) -> float:
    """Return a uniform number between 0 and 1 from a standard normal one: its probability integral.

    Example:
        >>> uniform(0.0)
        0.5
    """
    return 0.5 * math.erfc(-draw / math.sqrt(2.0))


def two_uniforms(draw: float) -> tuple[float, float]:
    """Return two independent uniform numbers, strictly between 0 and 1, from one standard normal draw.

    The leading 22 bits of a uniform number say nothing of those that follow.

    Example:
        >>> two_uniforms(0.0)
        (0.5000001192092896, 0.5)
    """
    scaled = min(uniform(draw), 1.0 - 1e-12) * _PARTS
    whole = math.floor(scaled)
    return (whole + 0.5) / _PARTS, min(max(scaled - whole, 1e-9), 1.0 - 1e-9) if scaled != whole else 0.5


def two_normals(draw: float) -> tuple[float, float]:
    """Return two independent standard normal draws from one."""
    one, other = two_uniforms(draw)
    return _NORMAL.inv_cdf(one), _NORMAL.inv_cdf(other)


def gamma(draw: float, shape: float, rate: float) -> float:
    """Return a gamma variable from a standard normal draw.

    Its cube root is nearly normal: E. B. Wilson and M. M. Hilferty, "The
    Distribution of Chi-square", PNAS 17(12), 1931.

    Example:
        >>> round(gamma(0.0, 50.0, 10.0), 2)  # the median
        4.97
    """
    root = 1.0 - 1.0 / (9.0 * shape) + draw / (3.0 * math.sqrt(shape))
    return shape / rate * max(root, 1e-2) ** 3
