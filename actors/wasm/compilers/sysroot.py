"""Prebuilt libraries: built once for each user and version of a toolchain, then only read.

A program of ours is built from the toolchain's own sources, which may take
minutes, and what comes of it is kept. Nothing hostile takes part.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from runvisor.actors.user_cache import cache_folder
from runvisor.policies.errors import ConfigError, SpawnFailed

_BUILD_TIMEOUT_S: Final = 1800.0
_MANIFEST: Final = "manifest.json"

_lock = threading.Lock()
_verified: set[Path] = set()


@dataclass(frozen=True, slots=True)
class Sysroot:
    """A folder of prebuilt files. Those in it may be read by the jailed compilers' users, written by us alone."""

    name: str
    """Its folder's name in the cache."""
    title: str
    """For people: what it is."""
    typical_s: float
    """What building it takes on two cores, about."""
    inputs: Callable[[], Sequence[str]]
    """All that the files depend on: where it changes, they are built anew."""
    build: Callable[[Path], Mapping[str, Path]]
    """Given an empty folder, makes the files and returns where each lies, by its relative name."""

    def folder(self, *, may_build: bool = True) -> Path | None:
        """Return the folder, whole and verified, building it first where it is missing.

        Args:
            may_build: Whether to build; without, a missing one gives None.

        Raises:
            ConfigError: The toolchain is not installed, or the cache folder can be written by others.
            SpawnFailed: The build failed; says why.
        """
        inputs = json.dumps([os.uname().machine, *self.inputs()])
        version = hashlib.sha256(inputs.encode()).hexdigest()[:16]
        folder = cache_folder() / self.name / version
        with _lock:
            if folder in _verified or _is_whole(folder):
                _verified.add(folder)
                return folder
            if not may_build:
                return None
            self._build(folder)
            if not _is_whole(folder):
                raise SpawnFailed(f"{self.title} does not stay whole in {folder}", "wasm")
            _verified.add(folder)
            return folder

    def _build(self, folder: Path) -> None:
        for place in (cache_folder(), folder.parent):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder.parent / "lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # another process may be at it: then its files are as good
            if _is_whole(folder):
                return
            with tempfile.TemporaryDirectory(prefix="building-", dir=folder.parent) as name:
                files = self.build(Path(name))
                made = Path(name, "made")
                made.mkdir()
                manifest: dict[str, str] = {}
                for file, path in files.items():
                    data = path.read_bytes()
                    target = made / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
                    manifest[file] = hashlib.sha256(data).hexdigest()
                (made / _MANIFEST).write_text(json.dumps(manifest, indent=1))
                for path in (made, *made.rglob("*")):  # the jail's users are others, the folder above is ours alone
                    path.chmod(0o755 if path.is_dir() else 0o644)
                if folder.exists():
                    shutil.rmtree(folder)
                made.rename(folder)


def _is_whole(folder: Path) -> bool:
    """Say whether the files are there as they were built.

    Raises:
        ConfigError: Somebody else could have written them.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    _check_private(folder)
    if not isinstance(manifest, dict) or not manifest:
        return False
    try:
        return all(_is_inside(name) and _digest(folder / name) == digest for name, digest in manifest.items())
    except OSError:
        return False


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_private(folder: Path) -> None:
    """Refuse a cache that another user could write to: what is in it goes into everybody's programs."""
    for place in (folder, folder.parent, folder.parent.parent):
        status = place.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ConfigError(
                f"the cache folder {place} can be written by others",
                "RUNVISOR_CACHE",
                "give it a folder that only this user can write to (mode 0700)",
            )


def run_tool(command: Sequence[str | Path], work: Path, environment: Mapping[str, str], what: str) -> tuple[str, str]:
    """Run a toolchain's program to build a library, and return its stdout and stderr.

    Raises:
        SpawnFailed: It failed or took too long; the message says what it was for.
    """
    try:
        run = subprocess.run(
            command,
            cwd=work,
            env={"PATH": "/usr/bin:/bin", "HOME": str(work), "TMPDIR": str(work), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SpawnFailed(f"{what} could not be built", str(command[0]), str(error)[-2000:]) from None
    if run.returncode:
        raise SpawnFailed(f"{what} could not be built", str(command[0]), run.stderr.strip()[-2000:])
    return run.stdout, run.stderr
