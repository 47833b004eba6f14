"""Where images are kept: in the user's cache, whole or not at all, and written by nobody else.

An image is code that runs on behalf of every task of its language. Its folder
is the user's own, its files are checked against their digests before they are
used, and what is in it came from pinned packages.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Final

from runvisor.actors.user_cache import cache_folder
from runvisor.actors.wasm.images.manifest import FILENAME, Manifest
from runvisor.actors.wasm.images.recipes import Tell, recipe, remedy
from runvisor.policies.errors import ConfigError

_PRIVATE: Final = 0o700
_OTHERS_KEPT: Final = 3


def find_image(name: str) -> Path | None:
    """Return the folder of an image that was built for this version of runvisor, or None.

    Cheap: looks for it without reading its files; `read_image` checks them.

    Raises:
        ConfigError: There is no image of that name.
    """
    folder = _folder(name)
    return folder if (folder / FILENAME).is_file() else None


def read_image(name: str, file: str) -> tuple[bytes, Manifest]:
    """Return a file of an image, as it was when it was built, and the image's manifest.

    Raises:
        ConfigError: The image was not built, was changed, or others could have written it.
    """
    folder = find_image(name)
    if folder is None:
        raise ConfigError(f"the image {name} is not built", "images", remedy(name))
    check_private(folder)
    try:
        manifest = Manifest.from_json((folder / FILENAME).read_text())
        data = (folder / file).read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the image {name} is damaged: {error}", str(folder), _again(name, folder)) from None
    if not manifest.fits(file, data):
        raise ConfigError(f"the image {name} is not as it was built: {file}", str(folder), _again(name, folder))
    return data, manifest


def build_image(name: str, tell: Tell) -> Path:
    """Build an image and keep it, in place of older ones; one that is there is kept as it is.

    Args:
        name: Which.
        tell: See `Tell`.

    Raises:
        ConfigError: It does not exist, lacks something to be built, or the cache can be written by others.
        SpawnFailed: It could not be built.
    """
    folder = _folder(name)
    if find_image(name) is not None:
        check_private(folder)
        return folder
    for place in (cache_folder(), folder.parent.parent, folder.parent):
        place.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    check_private(folder.parent)
    with tempfile.TemporaryDirectory(prefix="building-", dir=folder.parent) as scratch:
        work, made = Path(scratch) / "work", Path(scratch) / "made"
        work.mkdir(mode=_PRIVATE)
        made.mkdir(mode=_PRIVATE)
        built = recipe(name).build(work, tell)
        for file, data in built.files.items():
            (made / file).write_bytes(data)
        (made / FILENAME).write_text(Manifest.of(built.files, built.facts).to_json())
        try:
            made.rename(folder)
        except OSError:  # another process was faster; its files are as good
            if find_image(name) is None:
                raise
    _forget_older(folder)
    return folder


def check_private(folder: Path) -> None:
    """Refuse a folder of the cache that another user could write to.

    Raises:
        ConfigError: They could.
    """
    top = cache_folder()
    for place in (folder, *folder.parents):
        status = place.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ConfigError(
                f"the cache folder {place} can be written by others",
                "RUNVISOR_CACHE",
                "give it a folder that only this user can write to (mode 0700)",
            )
        if place == top:
            return


def _forget_older(folder: Path) -> None:
    """Delete what older versions built; the latest few stay, for other installations of the same user."""
    others = [other for other in folder.parent.iterdir() if other != folder and (other / FILENAME).is_file()]
    others.sort(key=lambda other: other.stat().st_mtime, reverse=True)
    for other in others[_OTHERS_KEPT:]:
        shutil.rmtree(other, ignore_errors=True)


def _folder(name: str) -> Path:
    return cache_folder() / "images" / name / _key(name)


@lru_cache(maxsize=16)
def _key(name: str) -> str:
    return hashlib.sha256(recipe(name).version().encode()).hexdigest()[:16]


def _again(name: str, folder: Path) -> str:
    return f"delete {folder}, then {remedy(name)}"
