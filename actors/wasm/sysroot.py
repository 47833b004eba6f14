"""The C library for wasm programs: built once for each machine and version of ziglang, then only read.

``zig cc`` builds it from the sources in the ziglang package when it first
compiles a program; that takes most of a minute, so it is done once, with a
program of ours, and the five files that come of it are kept. Nothing hostile
takes part.

Run ``python -m runvisor.actors.wasm.sysroot`` to build it ahead of time.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runvisor.actors.wasm.c_guest import LIBC_FILES
from runvisor.policies.errors import ConfigError, SpawnFailed

REMEDY: Final = "pip install 'runvisor[compilers]'"
_RECIPE: Final = "1"
"""Raise it when the files must be built anew."""
_BUILD_TIMEOUT_S: Final = 900.0
_MANIFEST: Final = "manifest.json"
_COMMAND: Final = '#include <stdio.h>\nint main(void) { return printf("%s", "") < 0; }\n'
_REACTOR: Final = "int f(void) { return 1; }\n"

_lock = threading.Lock()
_loaded: dict[Path, Mapping[str, bytes]] = {}


def find_ziglang() -> Path | None:
    """Return the folder of the ziglang package, or None where it is not installed."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    return folder if (folder / "zig").exists() else None


def require_ziglang() -> Path:
    """Return the folder of the ziglang package.

    Raises:
        ConfigError: It is not installed; says how to install it.
    """
    folder = find_ziglang()
    if folder is None:
        raise ConfigError("C needs the compiler in the package ziglang, which is not installed", "wasm", REMEDY)
    return folder


def cache_folder() -> Path:
    """Return the folder for what is built once: ``$RUNVISOR_CACHE``, else ``~/.cache/runvisor``."""
    override = os.environ.get("RUNVISOR_CACHE")
    return Path(override) if override else Path.home() / ".cache" / "runvisor"


def libc(*, may_build: bool = True) -> Mapping[str, bytes] | None:
    """Return the C library's files by name, building them first where they are missing.

    Args:
        may_build: Whether to build; without, missing files give None.

    Raises:
        ConfigError: ziglang is not installed, or the cache folder can be written by others.
        SpawnFailed: The build failed; says why.
    """
    ziglang = require_ziglang()
    folder = cache_folder() / "zig" / _version()
    with _lock:
        files = _loaded.get(folder)
        if files is None:
            files = _load(folder)
            if files is None and may_build:
                _build(ziglang, folder)
                files = _load(folder)
            if files is not None:
                _loaded[folder] = files
        return files


def _version() -> str:
    """Name the build by all that goes into it; the package's version says it without running zig."""
    from importlib.metadata import version

    inputs = json.dumps([_RECIPE, version("ziglang"), os.uname().machine, _COMMAND, _REACTOR])
    return hashlib.sha256(inputs.encode()).hexdigest()[:16]


def _load(folder: Path) -> Mapping[str, bytes] | None:
    """Read the files, if they are whole and nobody else could have written them."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        files = {name: (folder / name).read_bytes() for name in LIBC_FILES}
    except (OSError, ValueError):
        return None
    _check_private(folder)
    whole = isinstance(manifest, dict) and all(
        manifest.get(name) == hashlib.sha256(data).hexdigest() for name, data in files.items()
    )
    return files if whole else None


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


def _build(ziglang: Path, folder: Path) -> None:
    for place in (cache_folder(), folder.parent):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="building-", dir=folder.parent) as name:
        work = Path(name)
        objects = _compile_libc(ziglang, work)
        made = work / "made"
        made.mkdir(mode=0o700)
        manifest: dict[str, str] = {}
        for file in LIBC_FILES:
            data = objects[file].read_bytes()
            (made / file).write_bytes(data)
            manifest[file] = hashlib.sha256(data).hexdigest()
        (made / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        if folder.exists():  # damaged, or another process was faster; its files are as good
            shutil.rmtree(folder, ignore_errors=True)
        try:
            made.rename(folder)
        except OSError:
            if _load(folder) is None:
                raise


def _compile_libc(ziglang: Path, work: Path) -> dict[str, Path]:
    """Have zig build its library and say where the parts lie, by its own linker command line."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(work),
        "ZIG_GLOBAL_CACHE_DIR": str(work / "cache"),
        "ZIG_LOCAL_CACHE_DIR": str(work / "cache"),
        "ZIG_VERBOSE_LINK": "1",
    }
    found: dict[str, Path] = {}
    for name, text, options in (("command", _COMMAND, ()), ("reactor", _REACTOR, ("-mexec-model=reactor",))):
        (work / f"{name}.c").write_text(text)
        run = subprocess.run(
            [ziglang / "zig", "cc", "--target=wasm32-wasi", "-O2", "-s", *options, f"{name}.c", "-o", f"{name}.wasm"],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_BUILD_TIMEOUT_S,
            check=False,
        )
        if run.returncode:
            raise SpawnFailed("the C library for wasm could not be built", "zig cc", run.stderr.strip()[-2000:])
        for word in run.stderr.split():
            path = Path(word)
            if path.name in LIBC_FILES:
                found[path.name] = work / path
    missing = [file for file in LIBC_FILES if file not in found]
    if missing:
        raise SpawnFailed(
            f"this ziglang builds no {', '.join(missing)}", "zig cc", "install the version in the lock file"
        )
    return found


def main() -> int:
    """Build the C library now, and say so."""
    if libc(may_build=False) is not None:
        print(f"the C library is there: {cache_folder() / 'zig'}")
        return 0
    print("building the C library for wasm (once for this machine; about a minute) ...", flush=True)
    began = time.monotonic()
    files = libc()
    assert files is not None
    size = sum(map(len, files.values()))
    print(f"built in {time.monotonic() - began:.0f} s: {size / 1e6:.1f} MB in {cache_folder() / 'zig'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
