"""Fetching packages through their registries' clients, and reading what is inside without unpacking it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

_LIMIT_S: Final = 600
_KEYS: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MIRROR: Final = "http://deb.debian.org/debian"


class Debian:
    """Packages and sources of one Debian release, with lists of its own: the machine's stay as they are."""

    def __init__(self, folder: Path, suite: str = "bookworm") -> None:
        """Fetch the lists.

        Args:
            folder: Where lists and packages go.
            suite: The release.
        """
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        listed = folder / "sources.list"
        listed.write_text(
            "".join(f"{kind} [signed-by={_KEYS}] {_MIRROR} {suite} main\n" for kind in ("deb", "deb-src"))
        )
        self._options = [
            f"-oDir::Etc::sourcelist={listed}",
            "-oDir::Etc::sourceparts=-",
            f"-oDir::State::Lists={folder / 'lists'}",
            f"-oDir::Cache={folder / 'cache'}",
            "-oAPT::Sandbox::User=root",
        ]
        _run(["apt-get", *self._options, "-qq", "update"], folder)

    def sources(self, names: Sequence[str], folder: Path) -> None:
        """Fetch source packages."""
        _run(["apt-get", *self._options, "-qq", "source", "--download-only", "--only-source", *names], folder)

    def packages(self, names: Sequence[str], folder: Path) -> None:
        """Fetch packages."""
        _run(["apt-get", *self._options, "-qq", "download", *names], folder)


def wheels(names: Sequence[str], folder: Path) -> None:
    """Fetch wheels from PyPI."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    _run([*pip, "-d", str(folder), *names], folder)


def node_packages(names: Sequence[str], folder: Path) -> None:
    """Fetch packages of node."""
    _run(["npm", "pack", "--silent", "--ignore-scripts", *names], folder)


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_LIMIT_S)


def archive_of(registry: str, name: str, folder: Path) -> Path | None:
    """Return the archive of a package in the folder that it was fetched to."""
    stem = re.escape(name.lstrip("@").replace("/", "-"))
    loose = re.sub(r"[-_.]", "[-_.]", name)
    pattern = {
        "npm": rf"{stem}-[0-9][^-]*(-.*)?\.tgz",
        "pypi": rf"{loose}-[0-9].*\.whl",
        "debian": rf"{stem}_.*\.deb",
        "debian-source": rf"{stem}_((?!debian|orig-).)*\.tar\.\w+",
    }[registry]
    return next((path for path in sorted(folder.iterdir()) if re.fullmatch(pattern, path.name, re.IGNORECASE)), None)


def version_of(archive: Path) -> str:
    """Return the version that an archive's name says.

    Example:
        >>> version_of(Path("wabt_1.0.32.orig.tar.xz")), version_of(Path("ws-8.1.0.tgz"))
        ('1.0.32', '8.1.0')
    """
    match = re.search(r"[-_]v?(\d.*?)(?:\.orig)?(?:\.tar\..*|\.tgz|_\w+\.deb|-(?:py|cp).*\.whl)$", archive.name)
    return match[1] if match else archive.name


def licence_of(registry: str, archive: Path) -> str:
    """Return the name of a package's licence as the package says it, or "" if it says none.

    A source package says it in a file that is not fetched; all that Debian's main holds is free software.
    """
    if registry == "debian-source":
        return "as in Debian main"
    for name, data in files_in(archive):
        text = data.decode("utf-8", "replace")
        if registry == "npm" and name == "package/package.json":
            said = json.loads(text).get("license", "")
            return said if isinstance(said, str) else str(said.get("type", ""))
        if registry == "pypi" and name.endswith(".dist-info/METADATA"):
            match = re.search(
                r"^License-Expression: *(.+)$|^Classifier: License :: (?:.* :: )?(.+)$", text, re.MULTILINE
            )
            match = match or re.search(r"^License: *(.{1,60})$", text, re.MULTILINE)
            return next(filter(None, match.groups()), "") if match else ""
        if registry == "debian" and name.endswith("/copyright"):
            return ", ".join(dict.fromkeys(re.findall(r"^License: *(\S.{0,60})$", text, re.MULTILINE)))
    return ""


def files_in(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) of each regular file in a wheel, a tarball or a Debian package."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as bundle:
            for info in bundle.infolist():
                if not info.is_dir() and info.file_size < 1 << 20:
                    yield info.filename, bundle.read(info)
    elif archive.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacker,
            tarfile.open(fileobj=unpacker.stdout, mode="r|") as bundle,
        ):
            yield from _members(bundle)
    elif ".tar" in archive.name or archive.suffix == ".tgz":
        with tarfile.open(archive, mode="r|*") as bundle:
            yield from _members(bundle)


def _members(bundle: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in bundle:
        if member.isfile() and member.size < 1 << 20:
            reader = bundle.extractfile(member)
            if reader is not None:
                yield member.name, reader.read()
