"""Zig in the jail: a command if there is a ``main``, else a module of its ``export fn``.

Built with safety checks (ReleaseSafe), so that what is undefined traps, and with
function names.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, Final

from runvisor.actors.wasm.compilers.guest import MODULE, Recipe, run

SOURCE: Final = "program.zig"
_MAIN: Final = re.compile(rb"^[ \t]*pub[ \t]+fn[ \t]+main[ \t]*\(", re.MULTILINE)
_OPTIONS: Final = (
    "-target",
    "wasm32-wasi",
    "-OReleaseSafe",
    "-fno-compiler-rt",
    "-fno-ubsan-rt",
    "-fno-strip",
    "--stack",
    str(8 << 20),
    "--color",
    "off",
    "--cache-dir",
    "local",
    "--global-cache-dir",
    "global",
)


def prepare(options: dict[str, Any]) -> Recipe:
    """Return the recipe; the options are folders."""
    zig = str(Path(options["ziglang"], "zig"))
    runtime = str(Path(options["libc"], "libcompiler_rt.a"))
    shutil.copytree(Path(options["zir"], "z"), "global/z")
    for path in (*Path("global").rglob("*"), Path("global")):  # made before the child has its own uid
        path.chmod(0o777 if path.is_dir() else 0o666)  # zig opens them to write, and changes none

    def compile_zig(source: bytes, _: object) -> None:
        Path(SOURCE).write_bytes(source)
        entry = () if _MAIN.search(source) else ("-fno-entry", "-rdynamic")
        run([zig, "build-exe", *_OPTIONS, *entry, SOURCE, runtime, f"-femit-bin={MODULE}"], SOURCE)

    return compile_zig
