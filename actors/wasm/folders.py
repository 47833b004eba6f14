"""What a run of a module is shown of files: the folders that it finds open, and what its guard goes by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runvisor.actors.jail.mounts import IN, OUT, SCRATCH
from runvisor.policies.globs import PathPattern
from runvisor.policies.permissions import Filesystem, Permissions
from runvisor.policies.task import Task

_HERE: Final = "."
"""Where the engine process stands: the task's folder if its grant shows that place, else its scratch."""
_ROOT: Final = "/"


def needs_files(task: Task, permissions: Permissions) -> bool:
    """Say whether a task has to do with files, so that its engine must be its own."""
    return bool(task.files or permissions.filesystem.read or permissions.filesystem.write)


def shown_files(grant: Filesystem, folder: str = "") -> Mapping[str, Any]:
    """Return what a ``run`` request says of files.

    The folder that the guest starts in comes first and is called ``/``, because C
    libraries take relative paths from there. To them ``out`` and ``/out`` are one:
    a granted folder of the task's own of such a name takes the place of ours.

    Args:
        grant: Absolute patterns.
        folder: Where the guest starts; empty is its scratch.

    Example:
        >>> shown = shown_files(Filesystem(read=("/data/*.csv",)))
        >>> shown["folders"]
        [['/', '.'], ['/in', '/in'], ['/out', '/out'], ['/tmp', '/tmp'], ['/data', '/data']]
        >>> shown["read"], shown["write"], shown["scratch"]
        (['/data/*.csv', '/in/**'], [], ['/out', '/tmp'])
        >>> shown_files(Filesystem(write=("/home/u/out/**",)), "/home/u")["folders"]
        [['/', '.'], ['/in', '/in'], ['/tmp', '/tmp'], ['/home/u/out', '/home/u/out']]
    """
    places: dict[str, None] = {}
    for text in (*grant.read, *grant.write):
        pattern = PathPattern.parse(text)
        if pattern.is_literal:  # a file, or a folder as a whole: the folder that it lies in leads to both
            places[pattern.base] = None
            places[pattern.base.rpartition("/")[0]] = None
        else:
            places[pattern.base] = None
    places.pop("", None)
    folder = folder.rstrip("/")
    hidden = [place[len(folder) :] + "/" for place in places if folder and place.startswith(folder + "/")]
    ours = [name for name in (IN, OUT, SCRATCH) if not any(place.startswith(name + "/") for place in hidden)]
    names = [*ours, *(place for place in places if place not in (IN, OUT, SCRATCH))]
    return {
        "read": [*grant.read, f"{IN}/**"],
        "write": list(grant.write),
        "scratch": [OUT, SCRATCH],
        "folders": [[_ROOT, _HERE], *([name, name] for name in names)],
    }
