"""What took long to make, kept on disk by the hash of all that went into it, and never trusted unread.

An entry is one file, ``KIND/ab/REST.MAC``: the digest of its key, and the MAC
of its content, so that content and MAC appear in one rename (HMAC, RFC 2104).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import mmap
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from runvisor.policies.errors import ConfigError
from runvisor.policies.permissions import GiB

_LOG: Final = logging.getLogger(__name__)
_SHARED_BYTES: Final = 2 * GiB
_KEY_FILE: Final = "key"
_KEY_BYTES: Final = 32
_KIND: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_NAME: Final = re.compile(r"[0-9a-f]{62}\.[0-9a-f]{64}")
_UNFINISHED: Final = "new-"
_UNFINISHED_S: Final = 3600.0
"""A file that is still being written after this long was left by a process that died."""
_SLACK: Final = 16
"""A part of the bound: how much is freed at once, and may be added before the folder is looked through again."""
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ArtifactCache:
    """Bytes by kind and key, in a folder that several processes of one user share.

    A hint and no store: what is damaged, was put there by someone else, or was
    not used for longest is gone, and the caller makes it anew. Nothing comes out
    of it that this user did not put in under that very kind and key.

    Args:
        folder: Made with mode 0700 where it is missing; what it needs lies inside.
        max_bytes: The content's bound; other processes may pass it by a
            sixteenth each before what was least recently used goes.

    Raises:
        ConfigError: The folder or its key is someone else's, or open to others, or cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = ArtifactCache(Path(folder, "cache"), max_bytes=1 << 20)
        ...     cache.put("wasm", b"source and flags", b"the module")
        ...     cache.get("wasm", b"source and flags"), cache.get("wasm", b"other flags")
        (b'the module', None)
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._room = 0  # what may be put before looking through the folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(folder, folder.lstat(), stat.S_ISDIR)
            self._key = _read_key(folder)
        except OSError as error:
            raise ConfigError(
                f"the cache folder {folder} cannot be used: {error.strerror}",
                "RUNVISOR_CACHE",
                "name a folder that this user can write to",
            ) from None

    def get(self, kind: str, key: bytes) -> bytes | None:
        """Return what was put under that kind and key, or None.

        Args:
            kind: What sort of artifact it is: lower-case letters, digits and ``-``.
            key: All that goes into it, or a hash of that.
        """
        for file, content in self._verified(kind, key):
            with content:
                os.close(file)
                return content[:]
        return None

    def open(self, kind: str, key: bytes) -> int | None:
        """Return a descriptor, at offset 0, of a read-only file with that content and nothing else, or None.

        For engines that map a file: it is the file that was verified, and no
        process of ours ever writes into it. The caller closes it.
        """
        for file, content in self._verified(kind, key):
            content.close()
            return file
        return None

    def put(self, kind: str, key: bytes, data: bytes) -> None:
        """Keep it. Nothing happens if it is empty, larger than the bound, or the disk is full."""
        place, prefix = self._place(kind, key)
        if not 0 < len(data) <= self._max_bytes:
            return
        with contextlib.suppress(OSError):
            for folder in (place.parent, place):
                folder.mkdir(mode=0o700, exist_ok=True)
            unfinished = place / f"{_UNFINISHED}{secrets.token_hex(8)}"
            try:
                unfinished.touch(0o600, exist_ok=False)
                unfinished.write_bytes(data)
                unfinished.rename(place / f"{prefix}{self._mac(kind, key, data)}")
            except OSError:
                unfinished.unlink(missing_ok=True)
                raise
            self._make_room(len(data))

    def _place(self, kind: str, key: bytes) -> tuple[Path, str]:
        """Return the folder of an entry, and how its name begins."""
        if not _KIND.fullmatch(kind):
            raise ValueError(f"{kind!r} is no kind of artifact")
        digest = hashlib.sha256(key).hexdigest()
        return self._folder / kind / digest[:2], digest[2:] + "."

    def _mac(self, kind: str, key: bytes, content: bytes | mmap.mmap) -> str:
        mac = hmac.new(self._key, f"{kind}\0".encode() + hashlib.sha256(key).digest(), hashlib.sha256)
        mac.update(content)
        return mac.hexdigest()

    def _verified(self, kind: str, key: bytes) -> Iterator[tuple[int, mmap.mmap]]:
        """Yield the entry, open and mapped, both the caller's to close; what does not verify is removed."""
        place, prefix = self._place(kind, key)
        try:
            names = [path.name for path in place.iterdir() if path.name.startswith(prefix)]
        except OSError:
            return
        for name in names:
            path = place / name
            try:
                file = os.open(path, _READ)
            except OSError:  # it has just gone, or is a link
                _remove(path)
                continue
            try:
                status = os.fstat(file)
                _check_private(path, status, stat.S_ISREG)
                if not 0 < status.st_size <= self._max_bytes:
                    raise ValueError
                content = mmap.mmap(file, 0, prot=mmap.PROT_READ)
            except (OSError, ValueError, ConfigError):
                os.close(file)
                _remove(path)
                continue
            if not hmac.compare_digest(name, prefix + self._mac(kind, key, content)):
                content.close()
                os.close(file)
                _remove(path)
                continue
            with contextlib.suppress(OSError):
                os.utime(file)  # its last use, by which the oldest is found
            yield file, content
            return

    def _make_room(self, added: int) -> None:
        """Look through the folder when so much was added that the bound may be passed."""
        with self._lock:
            self._room -= added
            if self._room >= 0:
                return
            files = sorted(self._files(), key=lambda file: -file.used)
            slack = self._max_bytes // _SLACK
            kept = sum(file.size for file in files)
            if kept > self._max_bytes:
                while files and kept > self._max_bytes - slack:
                    oldest = files.pop()
                    _remove(oldest.path)
                    kept -= oldest.size
            self._room = min(slack, self._max_bytes - kept)

    def _files(self) -> Iterator[_File]:
        """Yield every entry; what is no entry, or was never finished, is removed."""
        for kind in self._folder.iterdir():
            if not _KIND.fullmatch(kind.name) or not kind.is_dir():
                continue
            for path in kind.glob("??/*"):
                try:
                    status = path.lstat()
                except OSError:
                    continue
                if _NAME.fullmatch(path.name):
                    yield _File(path, status.st_size, status.st_mtime_ns)
                elif not path.name.startswith(_UNFINISHED) or time.time() - status.st_mtime > _UNFINISHED_S:
                    _remove(path)


@cache
def shared_artifacts(folder: Path) -> ArtifactCache | None:
    """Return the cache of what this user's runtimes compile, or None where it cannot be kept: a log line says why."""
    try:
        return ArtifactCache(folder / "artifacts", max_bytes=_SHARED_BYTES)
    except ConfigError as error:
        _LOG.warning("what is compiled is not kept for other processes: %s", error)
        return None


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size: int
    used: int


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _read_key(folder: Path) -> bytes:
    """Return the key of all MACs, making it if it is missing or cut short."""
    path = folder / _KEY_FILE
    for _ in range(3):  # another process may be making it, too
        try:
            file = os.open(path, _READ)
        except FileNotFoundError:
            _make_key(folder, path)
            continue
        with os.fdopen(file, "rb") as source:
            _check_private(path, os.fstat(file), stat.S_ISREG)
            key = source.read(_KEY_BYTES + 1)
        if len(key) == _KEY_BYTES:
            return key
        path.unlink(missing_ok=True)
    raise ConfigError(f"the cache's key {path} does not stay whole", "RUNVISOR_CACHE", f"remove {folder}")


def _make_key(folder: Path, path: Path) -> None:
    """Put a new key in place whole, unless there is one already."""
    unfinished = folder / f"{_UNFINISHED}{secrets.token_hex(8)}"
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as sink:
            sink.write(secrets.token_bytes(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(unfinished)
    finally:
        unfinished.unlink()


def _check_private(path: Path, status: os.stat_result, is_due: Callable[[int], bool]) -> None:
    """Refuse what others own or can get at: what is in the cache goes into everybody's programs."""
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077 or not is_due(status.st_mode):
        raise ConfigError(
            f"{path} is not this user's alone",
            "RUNVISOR_CACHE",
            f"remove it or run chmod go-rwx {path}; or name another folder",
        )
