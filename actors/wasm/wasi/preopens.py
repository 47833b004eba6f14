"""The folders that a run finds open, as its host names them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm.wasi.descriptors import Directory
from runvisor.actors.wasm.wasi.guard import Denial, PathGuard
from runvisor.actors.wasm.wasi.world import World


def grant_files(world: World, files: Mapping[str, Any], emit: Callable[[Message], None]) -> None:
    """Open folders in a world, and guard them.

    Args:
        world: A run's, before it begins.
        files: ``read``, ``write`` and ``scratch`` for its guard; ``folders``, the name and the path of each.
        emit: Takes each denial.
    """

    def on_denial(denial: Denial) -> None:
        emit({"event": "denied", **denial.to_message()})

    world.guard = PathGuard(files["read"], files["write"], files["scratch"], on_denial)
    for name, path in files["folders"]:
        with contextlib.suppress(OSError):  # what the guest may not even list stays away
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            world.preopen(Directory.opened(fd, name.encode()))
