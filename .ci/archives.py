"""Check the wheel and the sdist: each file of the package is in each of them once, as a file.

Usage: ``python .ci/archives.py dist/*`` from the root of the repository.
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("policies", "actors", "supervisor")


def expected_files() -> set[str]:
    """Return every file that the package needs, as a path from the folder that holds ``runvisor``."""
    files = {f"runvisor/{path.name}" for path in (ROOT / "src/runvisor").iterdir() if path.is_file()}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files.add(f"runvisor/{path.relative_to(ROOT).as_posix()}")
    return files


def wheel_files(archive: Path) -> list[str]:
    """Return the wheel's members, except its own metadata."""
    with zipfile.ZipFile(archive) as wheel:
        return [name for name in wheel.namelist() if ".dist-info/" not in name]


def sdist_files(archive: Path) -> list[str]:
    """Return the sdist's source files, as paths from the folder that holds ``runvisor``."""
    with tarfile.open(archive) as sdist:
        members = sdist.getmembers()
    odd = [member.name for member in members if not (member.isfile() or member.isdir())]
    if odd:
        raise SystemExit(f"{archive.name}: links instead of files: {odd}")
    inside = [member.name.partition("/")[2] for member in members if member.isfile()]
    stray = [name for name in inside if name.partition("/")[0] in FOLDERS]
    if stray:
        raise SystemExit(f"{archive.name}: a second copy of the source outside src/: {stray[:5]}")
    return [name.removeprefix("src/") for name in inside if name.startswith("src/runvisor/")]


def check(archive: Path, found: list[str], expected: set[str]) -> None:
    """End the program if the archive lacks a file, has one twice, or has one that nobody asked for."""
    twice = sorted({name for name in found if found.count(name) > 1})
    lacking = sorted(expected - set(found))
    extra = sorted(set(found) - expected)
    if twice or lacking or extra:
        raise SystemExit(f"{archive.name}: twice {twice}, lacking {lacking}, not in the tree {extra}")
    print(f"{archive.name}: {len(found)} files, each once")


def main(arguments: list[str]) -> None:
    """Check one wheel and one sdist."""
    archives = [Path(argument) for argument in arguments]
    if sorted(path.suffix for path in archives) != [".gz", ".whl"]:
        raise SystemExit(f"one wheel and one sdist are wanted, not {arguments}")
    expected = expected_files()
    for archive in archives:
        found = wheel_files(archive) if archive.suffix == ".whl" else sdist_files(archive)
        check(archive, found, expected)


if __name__ == "__main__":
    main(sys.argv[1:])
