"""Rust in the jail: a command if there is a ``main``, else a module of its ``extern "C"`` functions.

One crate without dependencies; procedural macros of its own would need a second.
Function names are kept.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from runvisor.actors.wasm.compilers.guest import MODULE, Recipe, run

SOURCE: Final = "program.rs"
_MAIN: Final = re.compile(rb"^[ \t]*(?:pub(?:\([a-z]+\))?[ \t]+)?fn[ \t]+main[ \t]*\(", re.MULTILINE)
_OPTIONS: Final = (
    "--target=wasm32-wasi",
    "--edition=2021",
    "--crate-name=program",
    "--color=never",
    "-Copt-level=2",
    "-Ccodegen-units=1",
    "-Coverflow-checks=on",
    "-Cpanic=abort",
    "-Cstrip=debuginfo",
    "-Clinker-flavor=wasm-ld",
)


def prepare(options: dict[str, Any]) -> Recipe:
    """Return the recipe; the options are paths of programs."""
    command = [options["rustc"], *_OPTIONS, f"-Clinker={options['linker']}"]

    def compile_rust(source: bytes, _: object) -> None:
        Path(SOURCE).write_bytes(source)
        kind = "bin" if _MAIN.search(source) else "cdylib"
        run([*command, f"--crate-type={kind}", SOURCE, "-o", MODULE], SOURCE)

    return compile_rust
