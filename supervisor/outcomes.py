"""The journal of outcomes: how past executions went, kept for training and for plots.

An outcome is an arm, a family, numbers about the task, an ending and times; no
code and no inputs. The file is a row of frames, each a magic number, a length, a
CRC-32 and one batch of outcomes in msgpack. A frame is appended by one write(2),
so that what a killed process leaves is at worst a part of a frame: a reader
looks for the next magic number and goes on from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgpack

from runvisor.policies.errors import ConfigError, ProtocolError
from runvisor.policies.scheduling.base import Outcome
from runvisor.supervisor.private_files import open_own, private_folder, read_own
from runvisor.supervisor.reporter import Reporter

FILE_BYTES: Final = 8 << 20
"""A full file becomes the older one of two, and the older one before it goes."""

_NAME: Final = "outcomes.journal"
_OLDER: Final = "outcomes.journal.1"
_MAGIC: Final = b"\xc1rvO"
"""0xC1 is the one byte that msgpack never writes as a type."""
_HEAD: Final = struct.Struct("<4sII")
_MAX_FRAME_BYTES: Final = 4 << 20
_MOST_BYTES: Final = 64 << 20
"""The largest file that is read; one write may go beyond `FILE_BYTES`."""


class OutcomeJournal:
    """Appends outcomes to files of one folder, off the caller's path; several processes may at once.

    What was added is in the file a tenth of a second later, and outlives this
    process from then on, though not a power cut. A disk that is full costs
    outcomes and nothing else.

    Args:
        folder: Where the two files are; made when first needed, for its owner only.
        file_bytes: How large one may grow.
    """

    def __init__(self, folder: Path, *, file_bytes: int = FILE_BYTES) -> None:
        self.folder = folder
        self._file_bytes = file_bytes
        self._writer: Reporter | None = None

    def add(self, batch: Sequence[Any], now: float) -> None:
        """Take a batch of outcomes in wire form that the learner has accepted.

        Args:
            batch: `Outcome.to_wire` lists.
            now: Unix time in seconds; no outcome of the batch is later.
        """
        if not batch:
            return
        if self._writer is None:  # most supervisors of a command learn nothing: no thread for them
            self._writer = Reporter(self._append)
        self._writer.add((now, list(batch)))

    def close(self) -> None:
        """Write what is left; closing twice is fine."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def read(self) -> list[Outcome]:
        """Return the outcomes that are kept, in order of time; what is damaged is left out.

        Raises:
            ConfigError: What lies there is too large, another user's, or no file.
        """
        contents: list[bytes] = []
        with _locked(self.folder, fcntl.LOCK_SH) as is_there:
            for name in (_OLDER, _NAME) if is_there else ():
                with contextlib.suppress(FileNotFoundError):
                    contents.append(_content(self.folder / name))
        outcomes = [outcome for data in contents for outcome in outcomes_in(data)]
        outcomes.sort(key=lambda outcome: outcome.at)
        return outcomes

    def clear(self) -> None:
        """Forget every outcome."""
        with _locked(self.folder, fcntl.LOCK_EX) as is_there:
            for name in (_OLDER, _NAME) if is_there else ():
                (self.folder / name).unlink(missing_ok=True)

    def _append(self, batches: list[tuple[float, list[Any]]]) -> None:
        data = b"".join(frame_of(now, batch) for now, batch in batches)
        path = private_folder(self.folder) / _NAME
        with _locked(self.folder, fcntl.LOCK_EX):
            if path.exists() and path.stat().st_size + len(data) > self._file_bytes:
                path.rename(self.folder / _OLDER)
            fd = open_own(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                os.write(fd, data)
            finally:
                os.close(fd)


def outcomes_in(data: bytes) -> Iterator[Outcome]:
    """Yield the outcomes of a journal's bytes, whatever bytes those are.

    Args:
        data: A file's content; a frame that is torn or damaged is passed over.

    Example:
        >>> list(outcomes_in(b"no journal"))
        []
    """
    at = data.find(_MAGIC)
    while at >= 0:
        end = at + _HEAD.size
        if len(data) >= end:
            _, size, check = _HEAD.unpack_from(data, at)
            payload = data[end : end + min(size, _MAX_FRAME_BYTES)]
            if len(payload) == size and zlib.crc32(payload) == check:
                yield from _outcomes(payload)
                at = data.find(_MAGIC, end + size)
                continue
        at = data.find(_MAGIC, at + 1)


def frame_of(now: float, batch: Sequence[Any]) -> bytes:
    """Return a batch of outcomes as a frame; empty if it cannot be one: its oddity costs no other batch anything.

    Args:
        now: When it was received, in Unix seconds.
        batch: `Outcome.to_wire` lists.
    """
    try:
        payload: bytes = msgpack.packb([now, batch]) or b""
    except (OverflowError, TypeError, ValueError):
        return b""
    return _HEAD.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload if len(payload) <= _MAX_FRAME_BYTES else b""


def _content(path: Path) -> bytes:
    try:
        return read_own(path, _MOST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(
            f"the journal cannot be read: {error}", str(path), "runvisor policy reset --journal removes it"
        ) from None


def _outcomes(payload: bytes) -> Iterator[Outcome]:
    try:
        now, batch = msgpack.unpackb(payload)
        outcomes = [Outcome.from_wire(row) for row in batch]
        yield from (outcome if outcome.at <= now else outcome.moved_to(now) for outcome in outcomes)
    except (msgpack.UnpackException, ValueError, TypeError, ProtocolError):
        return  # of another version


@contextlib.contextmanager
def _locked(folder: Path, kind: int) -> Iterator[bool]:
    """Hold the folder's lock; yields whether there is such a folder."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, kind)
        yield True
    finally:
        os.close(fd)
