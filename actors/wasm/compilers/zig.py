"""Zig, through ziglang."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from runvisor.actors.wasm.compilers import toolchain, ziglang
from runvisor.actors.wasm.compilers.toolchain import CompileBounds, Lack, Workplace
from runvisor.actors.wasm.compilers.zig_recipe import SOURCE
from runvisor.policies.errors import GuestSyntaxError
from runvisor.policies.permissions import MiB

_MESSAGES: Final = (
    re.compile(r"^(?P<file>[^:\n]+):(?P<place>\d+:\d+): error: (?P<what>.*)$", re.MULTILINE),
    re.compile(r"^error: (?P<what>.*)$", re.MULTILINE),
)


@dataclass(frozen=True, slots=True)
class ZigToolchain:
    """Implements `runvisor.actors.wasm.compilers.toolchain.Toolchain`."""

    language: str = "zig"
    bounds: CompileBounds = field(default_factory=lambda: CompileBounds(timeout_s=60.0, scratch_bytes=256 * MiB))

    def probe(self) -> Lack | None:
        """See `Toolchain.probe`."""
        return ziglang.lack()

    def identity(self) -> str:
        """See `Toolchain.identity`."""
        return f"ziglang {ziglang.version()}"

    def workplace(self) -> Workplace:
        """See `Toolchain.workplace`."""
        folders = {"libc": str(ziglang.LIBC.folder()), "zir": str(ziglang.ZIR.folder())}
        return Workplace("zig_recipe", {"ziglang": str(ziglang.folder()), **folders}, tuple(folders.values()))

    def explain(self, log: str) -> GuestSyntaxError:
        """See `Toolchain.explain`."""
        return toolchain.explain(log, SOURCE, _MESSAGES)


ZIG: Final = ZigToolchain()
