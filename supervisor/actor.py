"""The supervisor actor: one per cluster; owns the pools, the learning and the plans."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import ray

from runvisor.actors.runtime import PoolSize
from runvisor.actors.sessions import SessionLimits
from runvisor.actors.settings import RuntimeSettings
from runvisor.actors.witness.witness import Witness
from runvisor.policies.authority import MIN_KEY_BYTES, Authority
from runvisor.policies.errors import TrustViolation
from runvisor.policies.permissions import Permissions
from runvisor.policies.scheduling.arms import ARMS
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.trust import Trust
from runvisor.supervisor.belief_file import BeliefFile
from runvisor.supervisor.learned import Learned
from runvisor.supervisor.outcomes import OutcomeJournal
from runvisor.supervisor.plan_run import stream_plan
from runvisor.supervisor.pools import Endpoint, PoolOptions, SupervisedPool
from runvisor.supervisor.prior_file import packed_prior
from runvisor.supervisor.probing import unavailable_here
from runvisor.supervisor.state_folder import state_folder

NAME: Final = "supervisor"
NAMESPACE: Final = "runvisor"


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """What the operator decides once, when the supervisor starts."""

    sizes: Mapping[str, PoolSize] = field(default_factory=dict)
    """Pool sizes by runtime."""
    sessions: Mapping[str, SessionLimits] = field(default_factory=dict)
    """How many sessions a runtime's pool keeps and when idle ones end. A pool that is not named
    keeps half of its instances for tasks, and ends a session after 600 s without a cell."""
    spares: bool = True
    """Keep a started spare behind each active pool."""
    allow_untrusted_bpf: bool = False
    """Let untrusted record programs into the kernel."""
    max_trust: Trust = Trust.TRUSTED
    """The most trust that any principal may claim."""
    permission_ceiling: Permissions | None = None
    """A bound on every principal's permissions, beside the trust levels' own."""
    authority_s: float = 24 * 3600.0
    """How long a handle's authority lasts before it must attach anew."""
    settings: RuntimeSettings = field(default_factory=RuntimeSettings)
    """What the runtimes are to be like."""
    audit_folder: str = ""
    """Where audit logs go; empty is ``runvisor/audit`` in the user's state folder (XDG_STATE_HOME)."""
    policy_folder: str = ""
    """Where what the scheduler learned and the journal of outcomes are; empty is ``runvisor/policy`` there."""
    keep_beliefs: bool = True
    """Keep what the scheduler learns in that folder, for the next supervisor. Those of one user that run at
    once, each with a Ray of its own, keep one file: the last to write it wins."""
    save_every_s: float = 5.0
    """How long after an outcome that is saved at the latest; what is younger dies with a killed supervisor."""


class SupervisorActor:
    """Coordinates; untrusted code never comes near it. Create it as a named async Ray actor.

    Args:
        options: The operator's decisions.
        cluster: The address of the cluster that it serves; empty for a Ray of one process. Each has beliefs of its own.
    """

    def __init__(self, options: SupervisorOptions, cluster: str = "") -> None:
        self._options = options
        self._key = secrets.token_bytes(MIN_KEY_BYTES)
        self._epoch = time.time_ns()
        audit_folder = options.audit_folder or str(state_folder() / "audit")
        self._pool_options = PoolOptions(
            self._key,
            audit_folder,
            options.sizes,
            options.spares,
            allow_untrusted_bpf=options.allow_untrusted_bpf,
            settings=options.settings,
            sessions=options.sessions,
        )
        self._witness: Witness | None = None
        self._witness_lock = asyncio.Lock()
        self._pools: dict[str, SupervisedPool] = {}
        self._policy_folder = folder = Path(options.policy_folder or state_folder() / "policy")
        self._journal = OutcomeJournal(folder)
        beliefs = BeliefFile.of(folder, cluster) if options.keep_beliefs else None
        prior = packed_prior(folder)
        arms = frozenset(arm.name for arm in ARMS)
        self._learned = Learned(HierarchicalScheduler, self._epoch, beliefs, options.save_every_s, prior, arms)
        self._unavailable = unavailable_here()

    async def attach(self, principal: str, trust: int, permissions: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Issue a handle: its sealed authority and what it needs to decide by itself.

        Args:
            principal: On whose behalf the handle acts.
            trust: The trust ceiling asked for.
            permissions: A permission ceiling for it, as plain data.

        Raises:
            TrustViolation: More trust is asked than the operator allows.
        """
        if trust > self._options.max_trust:
            raise TrustViolation(
                f"the operator allows at most {self._options.max_trust.label} trust", "trust", "attach with less"
            )
        ceiling = Permissions.from_dict(permissions) if permissions is not None else None
        if ceiling is None:
            ceiling = self._options.permission_ceiling
        elif self._options.permission_ceiling is not None:
            ceiling = ceiling.narrowed_to(self._options.permission_ceiling)
        expires_at = time.time() + self._options.authority_s
        authority = Authority(principal, Trust(trust), ceiling, expires_at, self._epoch)
        return {
            "authority": authority.seal(self._key),
            "expires_at": expires_at,
            "permissions": ceiling.to_dict() if ceiling else None,
            "unavailable": self._unavailable,
            "allow_untrusted_bpf": self._options.allow_untrusted_bpf,
            "snapshot": self._learned.publish(),
        }

    async def pool(self, runtime: str) -> Endpoint:
        """Return the endpoint of a runtime's active pool, starting it if need be.

        Raises:
            SpawnFailed: It cannot run here.
        """
        options = await self._watched_options()
        if runtime not in self._pools:
            self._pools[runtime] = SupervisedPool(runtime, options)
        return await self._pools[runtime].endpoint()

    async def replace(self, runtime: str, nonce: str) -> Endpoint:
        """Return the pool that took over from one that a caller found dead."""
        return await self._pools[runtime].replace(nonce)

    async def report(self, handle: str, outcomes: list[Any]) -> dict[str, Any]:
        """Learn from a batch of outcomes.

        Returns:
            The new snapshot, or an empty dict to a handle that was sent one within the last second:
            beliefs move slowly, and reading a large snapshot takes a handle milliseconds.
        """
        now = time.time()
        published = self._learned.learn(handle, outcomes, now)
        self._journal.add(outcomes, now)
        return published

    async def policy(self) -> dict[str, Any]:
        """Return what was learned as plain data, what else bears on choices, and where it is kept."""
        pools = await asyncio.gather(*(pool.running() for pool in self._pools.values()))
        return {
            "snapshot": self._learned.publish(),
            "unavailable": self._unavailable,
            "loads": {pool["runtime"]: pool["load"] for pool in pools},
            "folder": str(self._policy_folder),
            "node": ray.get_runtime_context().get_node_id(),
        }

    async def forget(self) -> None:
        """Forget what was learned, and start anew from the trained prior, if there is one."""
        self._learned.forget(packed_prior(self._policy_folder))

    async def adopt_prior(self) -> None:
        """Expect of new families what the trained prior in the policy's folder says."""
        self._learned.adopt(packed_prior(self._policy_folder))

    async def describe(self) -> dict[str, Any]:
        """Return the supervision tree as plain data."""
        return {
            "epoch": self._epoch,
            "observability": self._options.settings.observability,
            "audit_folder": self._pool_options.audit_folder,
            "policy_folder": str(self._policy_folder),
            "pools": [pool.describe() for pool in self._pools.values()],
            "unavailable": self._unavailable,
        }

    async def running(self) -> dict[str, Any]:
        """Return what all pools run just now, of all principals, as plain data."""
        pools = await asyncio.gather(*(pool.running() for pool in self._pools.values()))
        return {"observability": self._options.settings.observability, "pools": pools}

    async def run_plan(self, text: str, principal: str, trust: int) -> AsyncIterator[dict[str, Any]]:
        """Run a plan here, under supervision; yields its events and, last, its result.

        Args:
            text: The plan as its author wrote it.
            principal: On whose behalf.
            trust: The principal's trust ceiling.
        """
        own = ray.get_runtime_context().current_actor
        async for message in stream_plan(text, own, principal, Trust(trust)):
            yield message

    async def close(self) -> None:
        """End every pool in order."""
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        self._pools.clear()
        await self._learned.close()
        await asyncio.to_thread(self._journal.close)
        if self._witness is not None:
            await asyncio.to_thread(self._witness.close)

    async def _watched_options(self) -> PoolOptions:
        """Return how pools are made; the process that counts what they run is started first, if the operator wants it.

        Raises:
            SpawnFailed: It cannot be started; nothing runs uncounted in its stead.
        """
        if self._options.settings.observability == "kernel":
            async with self._witness_lock:
                if self._witness is None:
                    witness = Witness()
                    await asyncio.to_thread(witness.start)
                    self._witness = witness
                    self._pool_options = replace(self._pool_options, witness=witness.path)
        return self._pool_options
