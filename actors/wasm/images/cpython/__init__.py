"""The image of CPython: the interpreter of componentize-py, started, with the standard library and our driver loaded.

The driver is that of the Python runtime where it can be (how a task is parsed and
run, the plain forms of values, tracebacks), so that both give the same answers.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.resources import files
from pathlib import Path
from typing import Final

from runvisor.actors.wasm.images.component import first_memory_bytes
from runvisor.actors.wasm.images.recipes import Built, Tell
from runvisor.policies.errors import ConfigError, SpawnFailed

PACKAGE: Final = "componentize-py"
VERSION: Final = "0.25.1"
FILE: Final = "python.wasm"
"""The image's component."""
_RECIPE: Final = 1
"""Raise it when what is built changes without any of the sources."""
_GUEST: Final = "runvisor.actors.wasm.cpython.guest"
"""What the component runs; all of ours that it imports goes along."""
_MSGPACK: Final = ("__init__", "exceptions", "ext", "fallback")
_APP: Final = """\
import wit_world
from wit_world import print as send, sleep

from runvisor.actors.wasm.cpython.guest import Interpreter

_INTERPRETER = Interpreter(send, sleep)
_INTERPRETER.prepare()


class WitWorld(wit_world.WitWorld):
    def run(self, request: str) -> str:
        return _INTERPRETER.run(request)
"""
_BUILD_TIMEOUT_S: Final = 600.0


def version() -> str:
    """See `Recipe.version`."""
    sources = [_source(name) for name in sources_of(_GUEST)] + [_APP, _own("task.wit"), _own("LICENSES.md")]
    return "\n".join([str(_RECIPE), PACKAGE, VERSION, *(hashlib.sha256(text.encode()).hexdigest() for text in sources)])


def build(work: Path, tell: Tell) -> Built:
    """See `Recipe.build`."""
    _check_builder()
    tell("gathering sources", 0.02)
    app = work / "app"
    _gather(app)
    (work / "wit").mkdir()
    (work / "wit" / "task.wit").write_text(_own("task.wit"))
    nothing = work / "environment" / "lib" / "python3" / "site-packages"
    nothing.mkdir(parents=True)
    tell(f"starting CPython with {PACKAGE} {VERSION} (about 20 s)", 0.1)
    made = work / FILE
    command = [
        *(sys.executable, "-c", "import sys, componentize_py; sys.exit(componentize_py.script())"),
        *("-d", str(work / "wit"), "-w", "task", "componentize", "app", "-p", str(app), "-o", str(made)),
    ]
    # It would add the site-packages of whatever environment it is run in.
    environment = {"PATH": os.defpath, "VIRTUAL_ENV": str(nothing.parents[2])}
    try:
        ended = subprocess.run(
            command, env=environment, cwd=work, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SpawnFailed(f"{PACKAGE} did not run: {error}", "cpython") from None
    if ended.returncode or not made.is_file():
        raise SpawnFailed(f"{PACKAGE} failed: {(ended.stderr or ended.stdout).strip()[-2000:]}", "cpython")
    tell("writing the image", 0.95)
    component = made.read_bytes()
    return Built(
        {FILE: component, "LICENSES.md": _own("LICENSES.md").encode()}, {"memory_bytes": first_memory_bytes(component)}
    )


def finish(tell: Tell) -> None:
    """Have its native code made ahead: Cranelift takes 20 s for it, and 40 where instructions are counted."""
    from runvisor.actors.wasm.cpython.readiness import make_ready

    make_ready(tell)


def _check_builder() -> None:
    try:
        found = installed_version(PACKAGE)
    except PackageNotFoundError:
        found = "none"
    if found != VERSION:
        raise ConfigError(
            f"the image is built with {PACKAGE} {VERSION}, and {found} is installed",
            "cpython",
            "pip install 'runvisor[images]'",
        )


def _gather(app: Path) -> None:
    """Lay out what the component may import beside the standard library."""
    app.mkdir()
    (app / "app.py").write_text(_APP)
    for name in sources_of(_GUEST):
        file = app.joinpath(*name.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_source(name))
    msgpack = importlib.util.find_spec("msgpack")
    assert msgpack is not None
    assert msgpack.origin is not None
    (app / "msgpack").mkdir()
    for part in _MSGPACK:  # without its C part
        shutil.copy(Path(msgpack.origin).with_name(f"{part}.py"), app / "msgpack")


def sources_of(module: str) -> tuple[str, ...]:
    """Return a module of ours and all that it imports of ours, in any order that stays the same.

    Example:
        >>> sources_of("runvisor.actors.wasm.cpython.messages")
        ('runvisor.actors.wasm.cpython.messages',)
    """
    found: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += _imports(ast.parse(_source(name)))
    return tuple(sorted(found))


def _imports(node: ast.AST) -> Iterator[str]:
    """Yield the modules of ours that a source imports, but for type checkers."""
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.If) and ast.unparse(part.test) == "TYPE_CHECKING":
            continue
        if isinstance(part, ast.ImportFrom) and (part.module or "").startswith("runvisor."):
            package = part.module or ""
            for alias in part.names:
                inner = f"{package}.{alias.name}"
                yield inner if _is_module(inner) else package
        else:
            yield from _imports(part)


def _is_module(name: str) -> bool:
    package, _, module = name.rpartition(".")
    spec = importlib.util.find_spec(package)
    return bool(spec and spec.submodule_search_locations) and files(package).joinpath(f"{module}.py").is_file()


def _source(name: str) -> str:
    package, _, module = name.rpartition(".")
    return files(package).joinpath(f"{module}.py").read_text()


def _own(name: str) -> str:
    return files("runvisor.actors.wasm.images.cpython").joinpath(name).read_text()
