"""What Python and V8 share: a zygote, a pool of its sealed children, one child per task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any, Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.sealed import SealedInputs
from runvisor.actors.instances import InstancePool
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.conversation import Bounds, converse
from runvisor.actors.jail.custody import Custody, Warden
from runvisor.actors.jail.egress.records import EgressRecord
from runvisor.actors.jail.outcome import Around, to_result
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.session import REPLY_BYTES, JailedSession, first_frame, sealed_parts
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.runtime import Load, PoolSize, Probe, Watch
from runvisor.actors.witness.counting import UNWITNESSED, Witnessing
from runvisor.policies.permissions import MiB
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant
from runvisor.policies.values import Packed, pack

_WARM_MEMORY_BYTES: Final = 256 * MiB

OnConnection = Callable[[str, Mapping[str, Any]], None]
"""Called with the principal and each decision about a connection, from another thread. If it
raises, the decision is not on record, and every connection of the pool is cut."""


def _ignore_connection(principal: str, record: Mapping[str, Any]) -> None:
    """Record nothing."""


class JailedRuntime:
    """A runtime whose every execution has a process of its own.

    Args:
        name: The runtime's name.
        spec: What its zygote and children are.
        size: How many instances to keep.
        hosts: The operator's table of hosts whose places are pinned (see `EgressBroker`).
    """

    maps_sealed_inputs = True

    def __init__(self, name: str, spec: JailSpec, size: PoolSize, hosts: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.on_connection: OnConnection = _ignore_connection
        self.witness: Witnessing = UNWITNESSED
        self._zygote = Zygote(spec)
        self._pool: InstancePool[Child] = InstancePool(self._make, Child.close, size)
        self._warden = Warden(self._pool, self._zygote, hosts or {})

    @property
    def zygote_pid(self) -> int:
        """The process that forks the instances; for measuring."""
        return self._zygote.pid

    @property
    def alive(self) -> bool:
        """Whether it can make instances."""
        return self._zygote.alive

    def on_death(self, act: Callable[[], None]) -> None:
        """See `MortalRuntime.on_death`."""
        self._zygote.on_death(act)

    def probe(self) -> Probe:
        """See `Runtime.probe`."""
        return probe_jail(self.name)

    def start(self) -> None:
        """See `Runtime.start`."""
        self._zygote.identified = self.witness.accounts is not None
        self._zygote.start()
        self._pool.start()

    def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
        """See `Runtime.execute`."""
        permissions = grant.permissions
        inputs = task.inputs if isinstance(task.inputs, SealedInputs) else Packed(pack(task.inputs))
        message = {**first_frame(task, variant, permissions, permissions.timeout_s + 1), "inputs": inputs.data}
        shared = sealed_parts(inputs, message)
        asked = time.monotonic()
        with self._custody(task, grant, watch.cancellation) as custody:
            queue_s = time.monotonic() - asked
            message["env"] = {**custody.environment, **message["env"]}
            custody.child.limit_memory(permissions.memory_bytes)
            bounds = Bounds(permissions.timeout_s, permissions.output_bytes, REPLY_BYTES)
            with self.witness.count(custody.child) as counting:
                watch.counted(counting.now)
                transcript = converse(custody.child, message, bounds, watch, shared)
                counting.finish(killed=transcript.end != "reply")
            result = to_result(
                transcript,
                grant,
                language=task.language,
                code_bytes=len(task.code),
                runtime=self.name,
                variant=variant,
                queue_s=queue_s,
                around=Around.of(custody.child, networked=custody.networked),
            )
            result = counting.told(result)
            left = custody.collect(ended_well=result.ok)
        if left.files or left.refused:
            result = replace(result, files=left.files, refused_files=left.refused)
        return result

    def open_session(self, task: Task, variant: str, grant: Grant) -> JailedSession:
        """See `SessionRuntime.open_session`; the session occupies one of the pool's instances."""
        lease = ExitStack()
        try:
            custody = lease.enter_context(self._custody(task, grant))
            custody.child.limit_memory(grant.permissions.memory_bytes)
            counting = lease.enter_context(self.witness.count(custody.child))
            return JailedSession(custody, lease.close, task, grant, counting, runtime=self.name, variant=variant)
        except BaseException:
            lease.close()
            raise

    def load(self) -> Load:
        """See `Runtime.load`."""
        return self._pool.load()

    def close(self) -> None:
        """See `Runtime.close`."""
        self._pool.close()
        self._warden.close()
        self._zygote.close()

    def _custody(
        self, task: Task, grant: Grant, cancellation: Cancellation | None = None
    ) -> AbstractContextManager[Custody]:
        """Take the child that a task runs in."""

        def on_record(record: EgressRecord) -> None:
            self.on_connection(grant.principal, {"label": task.label, **record.to_message()})

        return self._warden.take(
            grant.permissions, on_record, files=task.files, folder=task.folder, cancellation=cancellation
        )

    def _make(self) -> Child:
        return self._zygote.spawn(memory_bytes=_WARM_MEMORY_BYTES)
