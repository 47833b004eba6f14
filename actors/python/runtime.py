"""The Python runtime: full CPython with the scientific stack, one fresh process per task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.runtime import PoolSize

PROFILES: Final[Mapping[str, tuple[str, ...]]] = {
    "bare": (),
    "science": (
        "numpy",
        "pandas",
        "sklearn.linear_model",
        "sklearn.ensemble",
        "sklearn.preprocessing",
        "sklearn.datasets",
        "sklearn.model_selection",
        "sklearn.metrics",
        "sklearn.cluster",
        "sklearn.decomposition",
        "sklearn.pipeline",
        "matplotlib.pyplot",
    ),
}
"""Packages that are imported before a task arrives, by profile."""


class PythonRuntime(JailedRuntime):
    """Python in pre-forked children that a zygote has preloaded and sealed.

    Args:
        size: How many instances to keep.
        profile: A name of `PROFILES`.
    """

    def __init__(self, size: PoolSize | None = None, profile: str = "science") -> None:
        spec = JailSpec("python", "runvisor.actors.python.guest", options={"modules": list(PROFILES[profile])})
        super().__init__("python", spec, size or PoolSize())
