"""The image of QuickJS: the interpreter of the npm package quickjs-wasi, started, with our driver loaded.

The driver is that of the V8 runtime where it can be (console, values, timers,
the parts of the Web API that need no process), so that both give the same answers.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from pathlib import Path
from typing import Final

from runvisor.actors.wasm.images import npm
from runvisor.actors.wasm.images.recipes import Built, Tell

PACKAGE: Final = "quickjs-wasi"
VERSION: Final = "3.6.2"
INTEGRITY: Final = "sha512-FCqGtGOrMgzUiIrMNMA2YnsOxCNwo31dzqXvclXUC6xeT35NJLKXQJsvbeCTjvoFAwZgEAPg8U6+KAPDGXn8Mg=="
FILE: Final = "quickjs.wasm"
"""The image's module."""
_RECIPE: Final = 1
"""Raise it when what is built changes without any of the sources."""
_DRIVER: Final = ("timers", "console", "values", "tasks")
_PARTS: Final = {"inspect": "parts", "text": "parts", "events": "parts", "data": "parts", "url": "bundle"}


def version() -> str:
    """See `Recipe.version`."""
    sources = [
        hashlib.sha256(text.encode()).hexdigest()
        for text in (driver(), parts(), _own("startup.py"), _own("script.py"), _own("LICENSES.md"))
    ]
    return "\n".join([str(_RECIPE), PACKAGE, VERSION, INTEGRITY, *sources])


def build(work: Path, tell: Tell) -> Built:
    """See `Recipe.build`."""
    from runvisor.actors.wasm.images.quickjs.startup import start

    tell(f"fetching {PACKAGE} {VERSION}", 0.05)
    files = npm.fetch(PACKAGE, VERSION, INTEGRITY, work)
    tell("starting the interpreter", 0.4)
    module, facts = start(files[FILE], driver(), parts())
    tell("writing the image", 0.95)
    notice = _own("LICENSES.md").replace("@PACKAGE-LICENSE@", files["LICENSE"].decode().strip())
    return Built({FILE: module, "LICENSES.md": notice.encode()}, facts)


def driver() -> str:
    """Return the driver's source: a function of the host's function, that returns what the host calls."""
    v8 = importlib.resources.files("runvisor.actors.v8")
    shared = "".join(v8.joinpath("driver", f"{name}.js").read_text() for name in _DRIVER)
    return f"((host) => {{\n{_own('prelude.js')}{shared}{_own('entry.js')}}})"


def parts() -> str:
    """Return the source of the parts: an object of what makes each."""
    v8 = importlib.resources.files("runvisor.actors.v8")
    made = ",\n".join(f"{name}: {v8.joinpath(place, f'{name}.js').read_text()}" for name, place in _PARTS.items())
    return f"({{ __proto__: null,\n{made} }})"


def _own(name: str) -> str:
    return importlib.resources.files("runvisor.actors.wasm.images.quickjs").joinpath(name).read_text()
