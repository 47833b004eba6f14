"""The folders that a run finds open, as its host names them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from runvisor.actors.wasm.wasi.descriptors import Directory
from runvisor.actors.wasm.wasi.guard import PathGuard
from runvisor.actors.wasm.wasi.world import World


def grant_files(world: World, files: Mapping[str, Any]) -> None:
    """Open folders in a world, and guard them.

    Args:
        world: A run's, before it begins.
        files: ``read``, ``write`` and ``scratch`` for its guard; ``folders``, the name and the path of each.
    """
    world.guard = PathGuard(files["read"], files["write"], files["scratch"])
    for name, path in files["folders"]:
        with contextlib.suppress(OSError):  # what the guest may not even list stays away
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            world.preopen(Directory.opened(fd, name.encode()))
