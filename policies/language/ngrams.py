"""Turns code into the numbers of its features: hashed n-grams of words and of shapes.

Words alone and in pairs carry the vocabulary, shapes by two, three and four the grammar. Each n-gram
is a number below `BUCKETS`; how often it occurs does not count.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from runvisor.policies.language.tokens import tokens, word_hash

BUCKETS: Final = 1 << 15

_ODD: Final = np.array([0xFF51AFD7ED558CCD, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)
"""Multipliers of multiplicative hashing, one for each place in an n-gram."""
_KIND: Final = np.arange(5, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)
_REST: Final = np.uint64(64 - BUCKETS.bit_length() + 1)


def features(text: str) -> NDArray[np.intp]:
    """Return the distinct features of a text, in rising order.

    Example:
        >>> np.array_equal(features("f(x)"), features("f(x)")), len(features("f(x)")) > 8
        (True, True)
    """
    both = np.array([word_hash(token) for token in tokens(text)], np.uint64)
    word, shape = both >> _HALF, both & _LOW
    two = shape[:-1] * _ODD[0] + shape[1:] * _ODD[1]
    three = two[:-1] + shape[2:] * _ODD[2]
    four = three[:-1] + shape[3:] * _ODD[3]
    pairs = word[:-1] * _ODD[1] + word[1:] * _ODD[2]
    # A kind of its own for each: a word is never taken for a shape.
    mixed = np.concatenate((word * _ODD[0], pairs + _KIND[1], two + _KIND[2], three + _KIND[3], four + _KIND[4]))
    mixed ^= mixed >> _HALF
    seen = np.zeros(BUCKETS, np.bool_)
    seen[(mixed * _ODD[3] >> _REST).view(np.int64)] = True
    return seen.nonzero()[0]
