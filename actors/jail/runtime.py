"""What Python and V8 share: a zygote, a pool of its sealed children, one child per task."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack
from typing import Final

from runvisor.actors.instances import InstancePool
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.conversation import Bounds, converse
from runvisor.actors.jail.outcome import to_result
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.session import REPLY_BYTES, JailedSession, first_frame
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.runtime import Load, PoolSize, Probe, Watch
from runvisor.policies.permissions import MiB
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant
from runvisor.policies.values import pack

_WARM_MEMORY_BYTES: Final = 256 * MiB


class JailedRuntime:
    """A runtime whose every execution has a process of its own.

    Args:
        name: The runtime's name.
        spec: What its zygote and children are.
        size: How many instances to keep.
    """

    def __init__(self, name: str, spec: JailSpec, size: PoolSize) -> None:
        self.name = name
        self._zygote = Zygote(spec)
        self._pool: InstancePool[Child] = InstancePool(self._make, Child.close, size)

    def probe(self) -> Probe:
        """See `Runtime.probe`."""
        return probe_jail(self.name)

    def start(self) -> None:
        """See `Runtime.start`."""
        self._zygote.start()
        self._pool.start()

    def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
        """See `Runtime.execute`."""
        permissions = grant.permissions
        message = {**first_frame(task, permissions, permissions.timeout_s + 1), "inputs": pack(task.inputs)}
        asked = time.monotonic()
        with self._child(task, grant) as child:
            queue_s = time.monotonic() - asked
            child.limit_memory(permissions.memory_bytes)
            bounds = Bounds(permissions.timeout_s, permissions.output_bytes, REPLY_BYTES)
            transcript = converse(child, message, bounds, watch)
        return to_result(transcript, task, grant, runtime=self.name, variant=variant, queue_s=queue_s)

    def open_session(self, task: Task, variant: str, grant: Grant) -> JailedSession:
        """See `SessionRuntime.open_session`; the session occupies one of the pool's instances."""
        lease = ExitStack()
        try:
            child = lease.enter_context(self._child(task, grant))
            child.limit_memory(grant.permissions.memory_bytes)
            return JailedSession(child, lease.close, task, grant, runtime=self.name, variant=variant)
        except BaseException:
            lease.close()
            raise

    def load(self) -> Load:
        """See `Runtime.load`."""
        return self._pool.load()

    def close(self) -> None:
        """See `Runtime.close`."""
        self._pool.close()
        self._zygote.close()

    def _child(self, task: Task, grant: Grant) -> AbstractContextManager[Child]:
        """Lend the child that a task runs in."""
        del task, grant
        return self._pool.lend()

    def _make(self) -> Child:
        return self._zygote.spawn(memory_bytes=_WARM_MEMORY_BYTES)
