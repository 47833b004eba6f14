"""What the scheduler has learned, kept on disk between two lives of the supervisor.

One file, written anew and put in place by rename(2): a reader finds the old one
or the new one, whole. It survives the death of every process; a power cut may
cost what was learned, and the checksum tells.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgpack

from runvisor.policies.errors import ProtocolError
from runvisor.supervisor.private_files import open_own, private_folder, read_own

T = TypeVar("T")
VERSION: Final = 1
MAX_BYTES: Final = 64 << 20
_LOG: Final = logging.getLogger(__name__)
_MAGIC: Final = b"runvisor beliefs"
_HEAD: Final = struct.Struct("<16sII")
_ODD: Final = re.compile(r"[^A-Za-z0-9.-]+")
_LOCAL: Final = "local"


class BeliefFile:
    """One supervisor's file of beliefs.

    Args:
        path: The file; its folder is made when first needed, for its owner only.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = BeliefFile.of(Path(folder))
        ...     file.write({"policy": "p"})
        ...     file.path.name, file.read(dict)
        ('beliefs-local.msgpack', {'policy': 'p'})
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, folder: Path, cluster: str = "") -> BeliefFile:
        """Return the file of a cluster, by its address, or of this user's embedded supervisors."""
        name = _ODD.sub("-", cluster) or _LOCAL
        return cls(folder / f"beliefs-{name}.msgpack")

    def write(self, document: Mapping[str, Any]) -> None:
        """Put a document in place of the last one.

        Raises:
            OSError: There is no room, or the folder is not this user's alone; the last one is still there.
        """
        body: bytes = msgpack.packb(document) or b""
        private_folder(self.path.parent)
        unfinished = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}")
        fd = open_own(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(fd, "wb") as sink:
                sink.write(_HEAD.pack(_MAGIC, VERSION, zlib.crc32(body)) + body)
            unfinished.rename(self.path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def read(self, use: Callable[[Mapping[str, Any]], T]) -> T | None:
        """Return what becomes of the document, or None if there is none that can be used.

        One that cannot be used is put aside under another name, and the log says why.

        Args:
            use: Makes something of it; raises `ProtocolError` if it is of another version.
        """
        try:
            return use(_document(read_own(self.path, MAX_BYTES)))
        except FileNotFoundError:
            return None
        except (OSError, ProtocolError) as error:
            self._put_aside(error)
            return None

    def _put_aside(self, error: Exception) -> None:
        aside = self.path.with_name(f"{self.path.name}.refused-{time.time_ns()}")
        kept = "it could not be put aside"
        with contextlib.suppress(OSError):
            self.path.rename(aside)
            kept = f"it is kept as {aside.name}"
        _LOG.warning("what the scheduler had learned cannot be used and it starts anew; %s: %s", kept, error)


def _document(data: bytes) -> Mapping[str, Any]:
    if len(data) < _HEAD.size:
        raise ProtocolError("it is cut off")
    magic, version, check = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != VERSION:
        raise ProtocolError(f"it is no file of beliefs of version {VERSION}")
    body = data[_HEAD.size :]
    if zlib.crc32(body) != check:
        raise ProtocolError("it is damaged")
    try:
        document = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError(f"it is damaged: {error}") from None
    if not isinstance(document, dict):
        raise ProtocolError("it holds no document")
    return document
