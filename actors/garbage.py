"""The cycle collector of a process that serves."""

from __future__ import annotations

import gc


def settle() -> None:
    """Collect what starting left, and never again walk through what stays.

    Ray and its imports are tens of thousands of objects; the collector would look at
    each of them every so often, in the middle of a request (see `gc.freeze`).
    """
    gc.collect()
    gc.freeze()
