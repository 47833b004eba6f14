"""A linear model over hashed n-grams: how likely a text is in each language.

Trained by ``benchmarks/language/train.py`` as a multinomial logistic regression; ``model_data.json``
says on what. It learned whole files cut into windows, prose among them, so it names languages that
runvisor does not run, too, and ``text`` for what is no code.
"""

from __future__ import annotations

import lzma
from binascii import a2b_base64
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from runvisor.policies.language.ngrams import BUCKETS, features


def log_odds(text: str) -> dict[str, float]:
    r"""Return the log-odds of each language, up to a constant.

    Args:
        text: Source text; the caller bounds its length, to which the work is proportional.

    Example:
        >>> odds = log_odds("def total(xs):\n    return sum(x for x in xs)\n")
        >>> max(odds, key=odds.__getitem__)
        'python'
    """
    languages, weights, biases, scale = _model()
    found = features(text)
    scores = weights[found].sum(axis=0, dtype=np.int32) * (scale / len(found) ** 0.5) + biases
    return dict(zip(languages, scores.tolist(), strict=True))


@lru_cache(maxsize=1)
def _model() -> tuple[tuple[str, ...], NDArray[np.int8], NDArray[np.float64], float]:
    """Unpack the weights, once and when first asked for: 20 ms."""
    from runvisor.policies.language import model_data

    languages = model_data.LANGUAGES
    weights = np.frombuffer(lzma.decompress(a2b_base64(model_data.WEIGHTS)), np.int8)
    by_bucket = np.ascontiguousarray(weights.reshape(len(languages), BUCKETS).T)
    return languages, by_bucket, np.array(model_data.BIASES), model_data.SCALE
