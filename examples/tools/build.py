"""Makes a component of the tool ``shapes`` in Python: ``python examples/tools/build.py shapes.wasm``.

Needs the extra ``images`` (componentize-py), and takes half a minute. What it makes
imports nothing: the interpreter's calls of WASI are stubs that trap.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TOOL = Path(__file__).parent / "shapes"


def build(made: Path) -> None:
    """Write the component.

    Args:
        made: Where to.

    Raises:
        CalledProcessError: componentize-py failed; it has said why.
    """
    with tempfile.TemporaryDirectory() as nothing:  # it would add the site-packages of the environment it runs in
        (Path(nothing) / "lib" / "python3" / "site-packages").mkdir(parents=True)
        subprocess.run(
            [
                *(sys.executable, "-c", "import sys, componentize_py; sys.exit(componentize_py.script())"),
                *("-d", str(TOOL), "-w", "shapes", "componentize", "python_shapes", "-p", str(TOOL)),
                *("--stub-wasi", "-o", str(made)),
            ],
            env={"PATH": os.defpath, "VIRTUAL_ENV": nothing},
            check=True,
        )


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "shapes.wasm"))
