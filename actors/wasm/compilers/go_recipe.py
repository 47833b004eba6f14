"""Go in the jail: the compiler and the linker, called directly with the prebuilt standard library.

Not through ``go build``: no module is looked for, and as no build system gives
an embed configuration, ``//go:embed`` embeds nothing. cgo is off. With a
``//go:wasmexport`` the module is a library of these functions, else a command.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from runvisor.actors.wasm.compilers.guest import MODULE, Recipe, run

SOURCE: Final = "program.go"
ENVIRONMENT: Final = {"GOOS": "wasip1", "GOARCH": "wasm", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOENV": "off"}
_EXPORT: Final = re.compile(rb"^//go:wasmexport[ \t]+\w", re.MULTILINE)
_CONFIG: Final = "importcfg"


def prepare(options: dict[str, Any]) -> Recipe:
    """Return the recipe; the options are folders."""
    tools, std = Path(options["tools"]), Path(options["std"])
    environment = {**ENVIRONMENT, "GOROOT": options["goroot"]}
    packages = ((path.relative_to(std).with_suffix(""), path) for path in sorted(std.rglob("*.a")))
    Path(_CONFIG).write_text("".join(f"packagefile {name}={path}\n" for name, path in packages))

    def compile_go(source: bytes, _: object) -> None:
        Path(SOURCE).write_bytes(source)
        checked = ("-p", "main", "-complete", "-pack", "-nolocalimports", f"-trimpath={Path.cwd()}")
        run(
            [str(tools / "compile"), *checked, "-importcfg", _CONFIG, "-o", "program.a", SOURCE],
            SOURCE,
            environment,
        )
        mode = "c-shared" if _EXPORT.search(source) else "exe"
        linked = ("-importcfg", _CONFIG, f"-buildmode={mode}", "-o", MODULE, "program.a")
        run([str(tools / "link"), *linked], SOURCE, environment)

    return compile_go
