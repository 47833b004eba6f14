"""The public client: start or join a supervisor, run code, map it, run plans."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import RayError

from runvisor.policies.errors import ConfigError, RunvisorError
from runvisor.policies.language import detect, resolve
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import OnExcess, Trust
from runvisor.policies.values import Value
from runvisor.supervisor.actor import NAME, NAMESPACE, SupervisorActor, SupervisorOptions
from runvisor.supervisor.handle import Handle
from runvisor.supervisor.plan.outcome import PlanResult
from runvisor.supervisor.plan.run import Observer
from runvisor.supervisor.plan_client import run_plan

AUTO: Final = "auto"
_MAX_PARALLEL: Final = 32
_EMBEDDED_RAY: Final = {
    # Ray would run workers, and so every sandbox, at nice 15.
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Supervisor:
    """A handle on a running supervisor; safe to use from many threads.

    Use it as a context manager: leaving the block ends what `start` began.

    For example (run for real in tests/supervisor/test_client.py)::

        with Supervisor.start() as sv:
            sv.run("1 + 1", language="python").value
    """

    def __init__(self, handle: Handle, *, owns_supervisor: bool, owns_ray: bool) -> None:
        self._handle = handle
        self._owns_supervisor = owns_supervisor
        self._owns_ray = owns_ray
        self._threads = ThreadPoolExecutor(_MAX_PARALLEL, thread_name_prefix="runvisor")
        self._closed = False

    @classmethod
    def start(
        cls,
        address: str | None = None,
        *,
        principal: str | None = None,
        trust: Trust | str = Trust.TRUSTED,
        permissions: Permissions | None = None,
        options: SupervisorOptions | None = None,
    ) -> Supervisor:
        """Start a supervisor on a local, embedded Ray, or join one on a cluster.

        Args:
            address: A Ray address, or None for an embedded Ray of this process.
                On a cluster the supervisor is shared: the first to come starts it.
            principal: On whose behalf tasks run; the user's name by default.
            trust: The ceiling of this handle: tasks may claim at most that.
            permissions: A permission ceiling for this handle.
            options: The operator's decisions; they count for the first to come only.

        Raises:
            TrustViolation: The operator allows less trust.
            ConfigError: No Ray cluster answers at ``address``.
        """
        owns_ray = _connect(address)
        actor, is_new = _supervisor_actor(options or SupervisorOptions(), shared=address is not None)
        handle = Handle(actor, principal or getpass.getuser(), Trust.parse(trust), permissions)
        return cls(handle, owns_supervisor=is_new and address is None, owns_ray=owns_ray)

    def run(
        self,
        code: str | bytes,
        language: str = AUTO,
        *,
        inputs: Value = None,
        permissions: Permissions | Mapping[str, Any] | None = None,
        trust: Trust | str = Trust.UNTRUSTED,
        on_excess: OnExcess = "refuse",
        label: str = "",
    ) -> Result:
        """Run one piece of code in the sandbox that suits it.

        A guest that fails or goes over a limit is a result with an ``error``;
        what is refused or cannot be done raises.

        Args:
            code: Source text, or the bytes of a wasm module.
            language: Its name, or ``auto`` to find out.
            inputs: What the guest sees as ``inputs``.
            permissions: What it may do; everything else is denied.
            trust: How far you vouch for it.
            on_excess: ``narrow`` takes away what is beyond a ceiling instead of refusing.
            label: A name for people.

        Raises:
            ConfigError: The task is malformed, or its language is unknown.
            PolicyError: It asks for more than it may have, or no runtime may run it.
            CapacityError: No instance came free in time.
            WorkerError: Our side failed, twice.
        """
        task, reason = _task(code, language, inputs, permissions, trust, label)
        return self._handle.run(task, on_excess=on_excess, language_reason=reason)

    def map(
        self,
        code: str | bytes | Iterable[str | bytes],
        inputs: Iterable[Value] | None = None,
        language: str = AUTO,
        *,
        max_parallel: int = 8,
        **options: Any,
    ) -> Iterator[Result]:
        """Run one piece of code on many inputs, or many pieces; results come in order.

        Args:
            code: One source and ``inputs``, or an iterable of sources.
            inputs: One value per execution, when ``code`` is a single source.
            language: As for `run`.
            max_parallel: How many at once.
            options: As for `run`, for each.

        Yields:
            A result for each; what `run` would raise is raised when its turn comes.
        """
        single = isinstance(code, str | bytes)
        if single and inputs is None:
            raise ConfigError("map needs inputs for a single source", "inputs", "pass inputs, or many sources")
        work: Iterable[tuple[str | bytes, Value]] = (
            ((code, value) for value in inputs or ())
            if isinstance(code, str | bytes)
            else ((item, None) for item in code)
        )
        with ThreadPoolExecutor(max(1, max_parallel), thread_name_prefix="runvisor-map") as threads:
            yield from threads.map(lambda item: self.run(item[0], language, inputs=item[1], **options), work)

    def plan(self, plan: str | Path, *, observer: Observer | None = None) -> PlanResult:
        """Run an agent's plan: a Markdown file, or the text of one.

        Args:
            plan: A path, or text with at least one line break.
            observer: Called with each event as it happens.

        Raises:
            InvalidPlan: It does not parse, has a cycle, or names a step that is not there.
        """
        return run_plan(self._handle, plan, observer)

    async def arun(self, code: str | bytes, language: str = AUTO, **options: Any) -> Result:
        """The async twin of `run`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self.run(code, language, **options))

    async def amap(self, code: str | bytes | Iterable[str | bytes], *args: Any, **options: Any) -> list[Result]:
        """The async twin of `map`; returns all results."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: list(self.map(code, *args, **options)))

    async def aplan(self, plan: str | Path, *, observer: Observer | None = None) -> PlanResult:
        """The async twin of `plan`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self.plan(plan, observer=observer))

    def describe(self) -> dict[str, Any]:
        """Return the supervision tree and what cannot run here, as plain data."""
        return self._handle.describe()

    def close(self) -> None:
        """End what `start` began; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._threads.shutdown(wait=True)
        self._handle.close()
        if self._owns_supervisor:
            with contextlib.suppress(RayError, RunvisorError):
                ray.get(self._handle.supervisor.close.remote(), timeout=30)
            ray.kill(self._handle.supervisor)
        if self._owns_ray:
            ray.shutdown()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _connect(address: str | None) -> bool:
    """Make sure that this process is on Ray; say whether it was us who put it there."""
    if ray.is_initialized():
        return False
    for name, value in _EMBEDDED_RAY.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    if address is not None:
        # Ray's own commands do this; its driver, told an address, does not and is turned away.
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        ray.init(
            address=address or "local",
            namespace=NAMESPACE,
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (ConnectionError, RayError) as error:
        raise ConfigError(f"no Ray cluster at {address}: {error}", "address", "start one, or leave it out") from None
    return True


def _supervisor_actor(options: SupervisorOptions, *, shared: bool) -> tuple[Any, bool]:
    """Return the supervisor actor, and whether it was made now.

    A shared one outlives its maker and is restarted by Ray.
    """
    with contextlib.suppress(ValueError):
        return ray.get_actor(NAME, namespace=NAMESPACE), False
    actor = (
        ray.remote(SupervisorActor)
        .options(
            name=NAME,
            namespace=NAMESPACE,
            lifetime="detached" if shared else None,
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=1000,
            max_restarts=-1 if shared else 0,
        )
        .remote(options)
    )
    return actor, True


def _task(
    code: str | bytes,
    language: str,
    inputs: Value,
    permissions: Permissions | Mapping[str, Any] | None,
    trust: Trust | str,
    label: str,
) -> tuple[Task, str]:
    if not isinstance(permissions, Permissions):
        permissions = Permissions.from_dict(permissions or {})
    reason = ""
    if language == AUTO:
        guess = detect(code)
        language, reason = guess.language, f"Language {guess.language}: {guess.reason}."
    else:
        language = resolve(language)
    return Task(code, language, inputs, permissions, Trust.parse(trust), label), reason
