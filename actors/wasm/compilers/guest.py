"""A compiler's child: one source text to one wasm module, in a jail of its own.

Nothing but its scratch is writable, and nothing but the system's, the
interpreter's and the toolchain's folders is readable: an ``#include``,
``@embedFile``, ``//go:embed`` or ``include_bytes!`` of anything else finds nothing.
There is no network, and the tools see an environment of three variables.

One request, ``compile`` (source, exports), is answered by ``wasm``, or by
``log`` with the tools' messages.
"""

from __future__ import annotations

import importlib
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.policies.permissions import KiB

MODULE: Final = "program.wasm"
"""Where a recipe leaves what it made."""
_MAX_LOG_BYTES: Final = 32 * KiB


class Failed(Exception):
    """A tool refused its input; holds what it said."""


Recipe = Callable[[bytes, Sequence[str]], None]
"""Compiles a source to `MODULE`, exporting these functions if there are any; raises `Failed`."""


def preload(options: dict[str, Any]) -> None:
    """Import the recipe, once for all children."""
    _recipe(options)


def prepare(options: dict[str, Any]) -> Recipe:
    """Return the recipe, ready."""
    recipe: Recipe = _recipe(options).prepare(options)
    return recipe


def _recipe(options: dict[str, Any]) -> Any:
    return importlib.import_module(f"runvisor.actors.wasm.compilers.{options['recipe']}")


def serve(channel: FrameSocket, recipe: Recipe) -> None:
    """Answer one request, then leave."""
    request = channel.receive()
    if request is None:
        return
    channel.send({"op": "started"})
    try:
        recipe(request["source"], request["exports"])
        channel.send({"wasm": Path(MODULE).read_bytes()})
    except Failed as failed:
        channel.send({"log": str(failed)})


def run(command: Sequence[str], source: str, environment: Mapping[str, str] = {}) -> None:
    """Run a tool; what it says goes to a file, because hostile source can make it say gigabytes.

    Raises:
        Failed: It ended with an error.
    """
    here = str(Path.cwd())
    variables = {"PATH": "/usr/bin:/bin", "HOME": here, "TMPDIR": here, **environment}
    with Path("log").open("w+b") as log:
        status = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables, check=False
        ).returncode
        if status == 0:
            return
        log.seek(0)
        said = log.read(_MAX_LOG_BYTES).decode(errors="replace")
    if status < 0:
        said += f"\n{source}:1:1: error: the compiler died of {signal.Signals(-status).name}"
    raise Failed(said)
