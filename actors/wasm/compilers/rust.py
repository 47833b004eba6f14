"""Rust, through Debian's toolchain: rustc, its standard library for WASI, and LLVM's linker for wasm."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runvisor.actors.wasm.compilers import toolchain
from runvisor.actors.wasm.compilers.rust_recipe import SOURCE
from runvisor.actors.wasm.compilers.toolchain import CompileBounds, Lack, Workplace
from runvisor.policies.errors import GuestSyntaxError

REMEDY: Final = "apt-get install --no-install-recommends rustc libstd-rust-dev-wasm32 lld"
_RUSTC: Final = Path("/usr/bin/rustc")
_STD: Final = Path("/usr/lib/rustlib/wasm32-wasi/lib")
_MESSAGES: Final = (
    re.compile(
        r"^error(?:\[E\d+\])?: (?P<what>.*)\n[ ]*--> (?P<file>[^:\n]+):(?P<place>\d+:\d+)$",
        re.MULTILINE,
    ),
    re.compile(r"wasm-ld[-\d]*: error: (?:\S+\.o: )?(?P<what>.*)$", re.MULTILINE),
    re.compile(r"^error(?:\[E\d+\])?: (?P<what>.*)$", re.MULTILINE),
)


def find_linker() -> Path | None:
    """Return the newest wasm-ld of the system; the one that came with a newer rustc refuses Debian's library."""
    linkers = [path for path in Path("/usr/bin").glob("wasm-ld*") if re.fullmatch(r"wasm-ld(-\d+)?", path.name)]
    return max(linkers, key=lambda path: int(path.name.partition("d-")[2] or 0), default=None)


@dataclass(frozen=True, slots=True)
class RustToolchain:
    """Implements `runvisor.actors.wasm.compilers.toolchain.Toolchain`."""

    language: str = "rust"
    bounds: CompileBounds = field(default_factory=lambda: CompileBounds(timeout_s=40.0))

    def probe(self) -> Lack | None:
        """See `Toolchain.probe`."""
        missing = [
            name
            for name, is_there in (
                ("rustc", _RUSTC.exists()),
                ("libstd-rust-dev-wasm32", any(_STD.glob("libstd-*.rlib"))),
                ("lld", find_linker() is not None),
            )
            if not is_there
        ]
        if not missing:
            return None
        return Lack(f"Debian's {' and '.join(missing)}", REMEDY)

    def identity(self) -> str:
        """See `Toolchain.identity`; the names of the library's files hold hashes of their content."""
        linker = find_linker()
        tools = [_RUSTC, *([linker] if linker else [])]
        sizes = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in tools]
        return "\n".join([*sizes, *sorted(path.name for path in _STD.glob("*.rlib"))])

    def workplace(self) -> Workplace:
        """See `Toolchain.workplace`."""
        return Workplace("rust_recipe", {"rustc": str(_RUSTC), "linker": str(find_linker())})

    def explain(self, log: str) -> GuestSyntaxError:
        """See `Toolchain.explain`."""
        return toolchain.explain(log, SOURCE, _MESSAGES)


RUST: Final = RustToolchain()
