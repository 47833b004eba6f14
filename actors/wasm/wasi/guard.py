"""Which paths one run may read, change and look through: the globs of its grant, asked at every path operation.

The jail already shows nothing but what was granted. The guard says no a second
time, by the same patterns, and it is what tells a file that may be written from
one beside it that may only be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runvisor.policies.globs import PathPattern

MAX_DENIALS: Final = 100
"""Denials of one run that are told; a flood of them is cut."""


@dataclass(frozen=True, slots=True)
class Denial:
    """One path operation that was refused."""

    operation: str
    """The function of WASI, such as ``path_open``."""
    path: str
    """As the guest named it, made absolute where that was known."""
    reason: str

    def to_message(self) -> dict[str, str]:
        """Return it as plain data."""
        return {"operation": self.operation, "path": self.path, "reason": self.reason}


class PathGuard:
    """Answers by absolute paths without links or dots, as the guest's own root has them.

    Args:
        read: Patterns of what may be read.
        write: Patterns of what may be made, changed, removed and read.
        scratch: Folders of the sandbox's own where everything may be done; what is granted
            inside them goes by its own patterns.

    Example:
        >>> guard = PathGuard(["/in/**", "/data/*.csv"], [], ["/out"])
        >>> guard.may_read("/data/a.csv"), guard.may_write("/data/a.csv"), guard.may_read("/data/a.txt")
        (True, False, False)
        >>> guard.may_read("/out/x"), guard.may_write("/out/x"), guard.may_enter("/"), guard.may_enter("/etc")
        (True, True, True, False)
    """

    def __init__(
        self,
        read: Sequence[str] = (),
        write: Sequence[str] = (),
        scratch: Sequence[str] = (),
    ) -> None:
        self._read = [PathPattern.parse(text) for text in read]
        self._write = [PathPattern.parse(text) for text in write]
        self._scratch = tuple(scratch)
        self._bases = tuple({pattern.base for pattern in (*self._read, *self._write)})

    def may_read(self, path: str) -> bool:
        """Say whether a file may be read."""
        return self.may_write(path) or any(_names(pattern, path, whole=True) for pattern in self._read)

    def may_write(self, path: str) -> bool:
        """Say whether a file may be made, changed or removed."""
        return self._is_scratch(path) or any(_names(pattern, path, whole=False) for pattern in self._write)

    def may_make_folder(self, path: str) -> bool:
        """Say whether a folder may be made or removed: something in it, or it itself, may be written."""
        return self.may_write(path) or any(_leads(pattern, path) for pattern in self._write if pattern.names)

    def may_enter(self, path: str) -> bool:
        """Say whether a folder may be opened, listed and passed: it lies on the way to something granted."""
        if path in self._scratch or self._is_scratch(path):
            return True
        for base in (*self._bases, *self._scratch):
            if path in (base, "/") or base.startswith(path + "/"):
                return True
        return any(_leads(pattern, path) for pattern in (*self._read, *self._write))

    def may_see(self, path: str) -> bool:
        """Say whether a name may be shown in a listing, and looked at."""
        return self.may_read(path) or self.may_enter(path)

    def _is_scratch(self, path: str) -> bool:
        """Say whether a path lies in the scratch, and in nothing that is granted there."""
        return any(path.startswith(folder + "/") for folder in self._scratch) and not any(
            path == base or path.startswith(base + "/") for base in self._bases
        )


NOTHING: Final = PathGuard()
"""Lets no path through."""


def _names(pattern: PathPattern, path: str, *, whole: bool) -> bool:
    """Say whether a pattern means a path.

    Args:
        pattern: Of the grant.
        path: Absolute.
        whole: A pattern without wildcards means all that lies in a folder of that name too.
    """
    if pattern.is_literal:
        return path == pattern.base or (whole and path.startswith(pattern.base + "/"))
    below = path.startswith(pattern.base + "/")
    return below and pattern.matches(path[len(pattern.base) + 1 :])


def _leads(pattern: PathPattern, path: str) -> bool:
    """Say whether a folder lies below a pattern's base and something in it may be meant."""
    if not path.startswith(pattern.base + "/"):
        return False
    return pattern.may_hold_matches(path.count("/") - pattern.base.count("/"))
