"""Files that only their owner may have put there, and the folder that they lie in."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def private_folder(folder: Path) -> Path:
    """Return a folder that is this user's alone; it is made, with mode 0700, where it is missing.

    Args:
        folder: One that exists keeps its mode: it may be somebody's for other things as well.

    Raises:
        OSError: It cannot be made, is another user's, or open to others.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     oct(private_folder(Path(parent, "policy")).stat().st_mode & 0o777)
        '0o700'
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(f"{folder} is not this user's alone: run chmod go-rwx {folder}, or name another folder")
    return folder


def open_own(path: Path, flags: int) -> int:
    """Open a regular file of this user's, and wait for nothing; the caller closes the descriptor.

    Neither a link nor a pipe is opened in its place, by open(2) with ``O_NOFOLLOW`` and ``O_NONBLOCK``.

    Args:
        path: Where it should be.
        flags: Of open(2); one that they make is its owner's only.

    Raises:
        OSError: It is missing, something else, or another user's.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        return fd
    os.close(fd)
    raise PermissionError(f"{path} is no file, or another user's")


def read_own(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file of this user's; see `open_own`.

    Args:
        path: Where it should be.
        most_bytes: How large it may be.

    Raises:
        OSError: It is missing, something else, another user's, or larger.
    """
    with os.fdopen(open_own(path, os.O_RDONLY), "rb") as source:
        data = source.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(f"{path} is larger than {most_bytes} bytes")
    return data
