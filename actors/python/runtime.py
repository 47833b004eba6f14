"""The Python runtime: full CPython with the scientific stack, one fresh process per task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from runvisor.actors.instances import InstancePool
from runvisor.actors.jail.conversation import Bounds, converse
from runvisor.actors.jail.outcome import to_result
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Child, Zygote
from runvisor.actors.runtime import Load, PoolSize, Probe
from runvisor.policies.errors import InvalidTask
from runvisor.policies.permissions import MiB
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant
from runvisor.policies.values import pack

PROFILES: Final[Mapping[str, tuple[str, ...]]] = {
    "bare": (),
    "science": (
        "numpy",
        "pandas",
        "sklearn.linear_model",
        "sklearn.ensemble",
        "sklearn.preprocessing",
        "sklearn.datasets",
        "sklearn.model_selection",
        "sklearn.metrics",
        "sklearn.cluster",
        "sklearn.decomposition",
        "sklearn.pipeline",
        "matplotlib.pyplot",
    ),
}
"""Packages that are imported before a task arrives, by profile."""

_REPLY_BYTES: Final = 64 * MiB
_WARM_MEMORY_BYTES: Final = 256 * MiB


class PythonRuntime:
    """Python in pre-forked children that a zygote has preloaded and sealed.

    Args:
        size: How many instances to keep.
        profile: A name of `PROFILES`.
    """

    name = "python"

    def __init__(self, size: PoolSize | None = None, profile: str = "science") -> None:
        size = size or PoolSize()
        self._zygote = Zygote(
            JailSpec("python", "runvisor.actors.python.guest", options={"modules": list(PROFILES[profile])})
        )
        self._pool: InstancePool[Child] = InstancePool(self._make, Child.close, size)

    def probe(self) -> Probe:
        """See `Runtime.probe`."""
        return probe_jail(self.name)

    def start(self) -> None:
        """See `Runtime.start`."""
        self._zygote.start()
        self._pool.start()

    def execute(self, task: Task, variant: str, grant: Grant, on_started: Callable[[], None]) -> Result:
        """See `Runtime.execute`; each execution has a process of its own."""
        code = task.source
        permissions = grant.permissions
        asked = time.monotonic()
        try:
            inputs = pack(task.inputs)
        except Exception as error:
            raise InvalidTask(f"the inputs cannot be sent: {error}", "inputs") from None
        with self._pool.lend() as child:
            queue_s = time.monotonic() - asked
            child.limit_memory(permissions.memory_bytes)
            transcript = converse(
                child,
                {
                    "code": code,
                    "inputs": inputs,
                    "label": task.label,
                    "env": dict(permissions.env),
                    "cpu_s": permissions.cpu_s or permissions.timeout_s + 1,
                    "memory_bytes": permissions.memory_bytes,
                },
                Bounds(permissions.timeout_s, permissions.output_bytes, _REPLY_BYTES),
                on_started,
            )
        return to_result(transcript, task, grant, runtime=self.name, variant=variant, queue_s=queue_s)

    def load(self) -> Load:
        """See `Runtime.load`."""
        return self._pool.load()

    def close(self) -> None:
        """See `Runtime.close`."""
        self._pool.close()
        self._zygote.close()

    def _make(self) -> Child:
        return self._zygote.spawn(memory_bytes=_WARM_MEMORY_BYTES)
