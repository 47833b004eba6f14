"""What arms beside plain modules add to an engine process.

An arm's module for the engine process defines ``OPERATIONS``: for each request
that its host side sends (``lane.ask({"op": name, ...})``), a function that takes
the lane and the request and returns the reply. It may define ``define(engine)``,
which adds host functions to the linkers of the profiles that are the arm's own: it
is called for every engine that is made, and looks at ``engine.profile.name``.

Requests are the host's and can be trusted; what lies in a guest's memory cannot.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Final

from runvisor.actors.channel.frames import Message

if TYPE_CHECKING:
    from runvisor.actors.wasm.engine import EngineLane
    from runvisor.actors.wasm.engines import Engine

Operation = Callable[["EngineLane", Message], Message]

ARMS: Final[tuple[str, ...]] = (
    "runvisor.actors.wasm.cpython.tasks",
    "runvisor.actors.wasm.javascript.guest",
    "runvisor.actors.wasm.components.tasks",
)
"""Dotted names of the arms' modules."""


@cache
def arms() -> tuple[ModuleType, ...]:
    """Import every arm's module; the zygote does so before it forks."""
    return tuple(map(importlib.import_module, ARMS))


def operations_on(lane: EngineLane) -> Mapping[str, Callable[[Message], Message]]:
    """Return what each request of an arm is answered by on a lane."""
    return {name: partial(operation, lane) for arm in arms() for name, operation in arm.OPERATIONS.items()}


def define_imports(engine: Engine) -> None:
    """Let every arm add to the linker of a new engine."""
    for arm in arms():
        if hasattr(arm, "define"):
            arm.define(engine)
