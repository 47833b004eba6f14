"""Makes the native code of the image ahead, and sees that it runs."""

from __future__ import annotations

from typing import Final

from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.wasm.images.recipes import Tell
from runvisor.policies.errors import SpawnFailed
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

_INSTRUCTIONS: Final = 1_000_000_000


def make_ready(tell: Tell) -> None:
    """Run a task in both forms of the image; the first on a machine waits for the compiler.

    Where there is no jail there is nothing to do: Python in wasm cannot run there either.

    Args:
        tell: Told what is being done.

    Raises:
        SpawnFailed: The image does not run.
    """
    from runvisor.actors.wasm.runtime import WasmRuntime

    runtime = WasmRuntime(PoolSize(maximum=1))
    if not runtime.probe().available:
        return
    runtime.start()
    try:
        for doing, done, instructions in (
            ("compiling to native code (about 20 s)", 0.4, None),
            ("compiling to native code that counts instructions (about 40 s)", 0.6, _INSTRUCTIONS),
        ):
            tell(doing, done)
            task = Task("6 * 7", "python", permissions=Permissions(instructions=instructions))
            grant = Grant("runvisor", Trust.UNTRUSTED, task.permissions)
            result = runtime.execute(task, "cpython", grant, Watch(lambda: None))
            if result.value != 42:
                raise SpawnFailed(f"the image does not run: {result.error or result.value}", "cpython")
    finally:
        runtime.close()
