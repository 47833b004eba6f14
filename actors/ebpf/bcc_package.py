"""Where bcc is: Debian's package, or one that Python finds.

PyPI's ``bcc`` is an unrelated package; a real one has a ``libbcc`` module.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Final

NAME: Final = "bcc"
REMEDY: Final = "apt-get install --no-install-recommends python3-bpfcc"
_DEBIAN_FOLDER: Final = "/usr/lib/python3/dist-packages"


def folder() -> Path | None:
    """Return the package's folder without importing it, or None."""
    for path in (None, [_DEBIAN_FOLDER]):
        spec = PathFinder.find_spec(NAME, path)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            if (Path(place) / "libbcc.py").is_file():
                return Path(place)
    return None


def version() -> str:
    """Return the package's version without importing it, or the empty text."""
    found = folder()
    if found is None or not (found / "version.py").is_file():
        return ""
    words = (found / "version.py").read_text().replace("'", '"').split('"')
    return words[1] if len(words) > 1 else ""


def load() -> ModuleType:
    """Import it from its folder alone: the rest of Debian's packages stays out of ``sys.path``.

    Raises:
        ImportError: It is not there, or its library does not load.
    """
    found = folder()
    if found is None:
        raise ImportError(f"there is no bcc; {REMEDY}")
    if NAME in sys.modules:
        return sys.modules[NAME]
    spec = importlib.util.spec_from_file_location(NAME, found / "__init__.py", submodule_search_locations=[str(found)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{found} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[NAME]
        raise
    return module
