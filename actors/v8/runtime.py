"""The V8 runtime: JavaScript in a fresh isolate, in a fresh process per task."""

from __future__ import annotations

from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.runtime import PoolSize


class V8Runtime(JailedRuntime):
    """JavaScript in pre-forked children, each with an isolate that has run nothing.

    Args:
        size: How many instances to keep.
    """

    def __init__(self, size: PoolSize | None = None) -> None:
        super().__init__("v8", JailSpec("v8", "runvisor.actors.v8.guest"), size or PoolSize())
