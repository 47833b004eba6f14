"""The supervised pools: one active actor per runtime, and a started spare behind it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from runvisor.actors.pool import PoolActor
from runvisor.actors.runtime import PoolSize
from runvisor.actors.sessions import SessionLimits
from runvisor.actors.settings import RuntimeSettings
from runvisor.policies.errors import RestartIntensityExceeded, RunvisorError, SpawnFailed
from runvisor.supervisor.tree import RestartIntensity

Endpoint = dict[str, Any]
"""What `PoolActor.describe` returns, with the actor's handle under ``actor``."""


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How pools are made."""

    key: bytes
    audit_folder: str
    sizes: Mapping[str, PoolSize] = field(default_factory=dict)
    """By runtime; the default size for those that are not named."""
    spares: bool = True
    """Keep a started spare behind each active pool."""
    spare_delay_s: float = 5.0
    """How long after a pool its spare is started, so as not to slow the first tasks."""
    allow_untrusted_bpf: bool = False
    settings: RuntimeSettings = field(default_factory=RuntimeSettings)
    sessions: Mapping[str, SessionLimits] = field(default_factory=dict)
    """By runtime; by the pool's size for those that are not named."""
    witness: str = ""
    """The socket of the process that counts executions in the kernel; empty counts none."""


class SupervisedPool:
    """One runtime's pool under one_for_one supervision.

    The active actor is watched by a call that never returns; when it fails,
    the spare takes over at once and a new spare is started.

    Args:
        runtime: The runtime's name.
        options: How to make its actors.
    """

    def __init__(self, runtime: str, options: PoolOptions) -> None:
        self.runtime = runtime
        self._options = options
        self._lock = asyncio.Lock()
        self._active: Endpoint | None = None
        self._spare: asyncio.Task[Endpoint] | None = None
        self._spare_is_needed = asyncio.Event()
        self._spare_is_started = False
        self._watches: set[asyncio.Task[None]] = set()
        self._restarts = RestartIntensity()
        self._failure: RunvisorError | None = None

    async def endpoint(self) -> Endpoint:
        """Return the active pool, starting it first if need be.

        Raises:
            SpawnFailed: It cannot run here.
            RestartIntensityExceeded: It died too often.
        """
        async with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._active is None:
                try:
                    self._adopt(await self._start())
                except RunvisorError as error:
                    self._failure = error
                    raise
            assert self._active is not None
            return self._active

    async def replace(self, nonce: str) -> Endpoint:
        """Return a pool other than the one with this nonce, which a caller found dead."""
        async with self._lock:
            if self._active is not None and self._active["nonce"] == nonce:
                await self._fail_over()
        return await self.endpoint()

    async def close(self) -> None:
        """End the active pool and the spare in order."""
        async with self._lock:
            for watch in self._watches:
                watch.cancel()
            endpoints = [self._active] if self._active else []
            if self._spare is not None:
                if not self._spare_is_started:
                    self._spare.cancel()
                with contextlib.suppress(RunvisorError, asyncio.CancelledError):
                    endpoints.append(await self._spare)
            for endpoint in endpoints:
                with contextlib.suppress(RayError):
                    await endpoint["actor"].close.remote()
                ray.kill(endpoint["actor"])
            self._active = None

    async def running(self) -> dict[str, Any]:
        """Return what the active pool runs just now, how busy it is, and whether the kernel counts it."""
        active = self._active
        if active is not None:
            with contextlib.suppress(RayError):  # it died just now, and another takes over
                running: dict[str, Any] = await active["actor"].running.remote()
                return running
        return {"runtime": self.runtime, "executions": [], "load": {}, "witness": ""}

    def describe(self) -> dict[str, Any]:
        """Return plain data for people: who is active, and whether a spare is ready."""
        return {
            "runtime": self.runtime,
            "active": {k: v for k, v in (self._active or {}).items() if k != "actor"},
            "spare_ready": bool(self._spare and self._spare.done() and not self._spare.cancelled()),
            "failure": str(self._failure) if self._failure else "",
        }

    async def _start(self) -> Endpoint:
        size = self._options.sizes.get(self.runtime, PoolSize())
        actor: Any = (
            ray.remote(PoolActor)
            .options(num_cpus=0, max_restarts=0, max_concurrency=size.maximum + 8)
            .remote(
                self.runtime,
                size,
                self._options.key,
                self._options.audit_folder,
                self._options.allow_untrusted_bpf,
                self._options.settings,
                self._options.sessions.get(self.runtime),
                self._options.witness,
            )
        )
        try:
            endpoint: Endpoint = await actor.start.remote()
        except RunvisorError as error:
            ray.kill(actor)
            raise SpawnFailed(error.what, error.where, error.remedy, error.details) from None
        except RayError as error:
            raise SpawnFailed(f"the {self.runtime} pool actor died while starting: {error}", self.runtime) from None
        endpoint["actor"] = actor
        return endpoint

    def _adopt(self, endpoint: Endpoint) -> None:
        self._active = endpoint
        watch = asyncio.create_task(self._watch(endpoint))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)
        if self._options.spares:
            self._spare_is_needed.clear()
            self._spare_is_started = False
            self._spare = asyncio.create_task(self._start_spare())

    async def _start_spare(self) -> Endpoint:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._spare_is_needed.wait(), self._options.spare_delay_s)
        self._spare_is_started = True
        return await self._start()

    async def _watch(self, endpoint: Endpoint) -> None:
        with contextlib.suppress(RayActorError):
            await endpoint["actor"].watch.remote()
            return
        async with self._lock:
            if self._active is not None and self._active["nonce"] == endpoint["nonce"]:
                await self._fail_over()

    async def _fail_over(self) -> None:
        """Promote the spare (called with the lock held)."""
        dead = self._active
        assert dead is not None
        self._active = None
        with contextlib.suppress(RayError):
            ray.kill(dead["actor"])
        shutil.rmtree(Path(dead["socket"]).parent, ignore_errors=True)
        if not self._restarts.admits(time.monotonic()):
            self._failure = RestartIntensityExceeded(
                f"the {self.runtime} pool died more than {self._restarts.intensity} times in "
                f"{self._restarts.period_s:g} s",
                self.runtime,
                "look at its audit log, then start the supervisor anew",
            )
            return
        spare, self._spare = self._spare, None
        self._spare_is_needed.set()
        try:
            self._adopt(await (spare if spare is not None else self._start()))
        except RunvisorError as error:
            self._failure = error
