"""The trained prior, on disk beside what was learned."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

from runvisor.policies.errors import ConfigError, ProtocolError
from runvisor.policies.scheduling.prior import TrainedPrior, packed, unpacked
from runvisor.supervisor.private_files import open_own, private_folder, read_own

_LOG: Final = logging.getLogger(__name__)
_NAME: Final = "prior.msgpack"
_MOST_BYTES: Final = 16 << 20


def load_prior(folder: Path) -> TrainedPrior | None:
    """Return the prior that was installed, or None if there is none.

    Raises:
        ConfigError: The file is damaged, of another version, too large, another user's, or no file.
    """
    path = folder / _NAME
    try:
        return unpacked(read_own(path, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ProtocolError) as error:
        raise ConfigError(
            f"the trained prior cannot be read: {error}", str(path), "runvisor policy reset --prior removes it"
        ) from None


def packed_prior(folder: Path) -> bytes:
    """Return the installed prior packed; empty if there is none that can be used, which the log says."""
    try:
        prior = load_prior(folder)
    except ConfigError as error:
        _LOG.warning("new code is scheduled without it: %s", error)
        return b""
    return b"" if prior is None else packed(prior)


def save_prior(folder: Path, prior: TrainedPrior) -> None:
    """Install a prior, all of it or nothing.

    Raises:
        ConfigError: The folder is not this user's alone, or the disk is full.
    """
    try:
        with _replacing(private_folder(folder) / _NAME) as path:
            fd = open_own(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            with os.fdopen(fd, "wb") as file:
                file.write(packed(prior))
                file.flush()
                os.fsync(fd)
    except OSError as error:
        raise ConfigError(f"the trained prior cannot be kept: {error}", str(folder), "make room for it there") from None


def drop_prior(folder: Path) -> None:
    """Remove the prior; the scheduler's own start counts again."""
    (folder / _NAME).unlink(missing_ok=True)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to; it takes the place of ``path`` when the block ends well."""
    draft = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
