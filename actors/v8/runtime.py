"""The V8 runtime: JavaScript and TypeScript in a fresh isolate, in a fresh process per task."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from runvisor.actors.jail.child import ChildUsage
from runvisor.actors.jail.conversation import Transcript
from runvisor.actors.jail.outcome import NOTHING_RAN, to_result
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.jail.session import JailedSession
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.runtime import Cell, OpenSession, PoolSize, Watch
from runvisor.actors.settings import RuntimeSettings
from runvisor.actors.v8.typescript import Compiled, TypeScriptCompiler
from runvisor.policies.errors import GuestError, LimitExceeded
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant


class V8Runtime(JailedRuntime):
    """JavaScript in pre-forked children, each with an isolate that has run nothing.

    TypeScript is compiled first, in a process of its own kind, and runs as JavaScript.

    Args:
        size: How many instances to keep.
        hosts: The operator's table of pinned hosts.
        cores: How many cores' worth of CPU time a task may use at once.
    """

    def __init__(
        self, size: PoolSize | None = None, *, hosts: Mapping[str, str] | None = None, cores: float | None = 1.0
    ) -> None:
        super().__init__("v8", JailSpec("v8", "runvisor.actors.v8.guest", cores=cores), size or PoolSize(), hosts)
        self._typescript = TypeScriptCompiler()

    def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
        """See `Runtime.execute`."""
        if task.language != "typescript":
            return super().execute(task, variant, grant, watch)
        began = time.monotonic()
        try:
            compiled = self._typescript.compile(task.source, grant.principal)
        except (GuestError, LimitExceeded) as error:
            return _refused(error, task, grant, variant, time.monotonic() - began)
        result = super().execute(replace(task, code=compiled.code), variant, grant, watch)
        return _told(result, compiled)

    def open_session(self, task: Task, variant: str, grant: Grant) -> OpenSession:  # type: ignore[override]
        """See `SessionRuntime.open_session`."""
        session = super().open_session(task, variant, grant)
        if task.language != "typescript":
            return session
        return _TypeScriptSession(session, self._typescript, task, grant, variant)

    def close(self) -> None:
        """See `Runtime.close`."""
        super().close()
        self._typescript.close()


class _TypeScriptSession:
    """A session whose cells are compiled before they run. See `OpenSession`."""

    def __init__(
        self, session: JailedSession, compiler: TypeScriptCompiler, task: Task, grant: Grant, variant: str
    ) -> None:
        self._session = session
        self._compiler = compiler
        self._task = task
        self._grant = grant
        self._variant = variant

    @property
    def ended(self) -> str:
        """See `OpenSession.ended`."""
        return self._session.ended

    def run(self, cell: Cell, watch: Watch) -> Result:
        """See `OpenSession.run`."""
        began = time.monotonic()
        try:
            compiled = self._compiler.compile(cell.code, self._grant.principal)
        except (GuestError, LimitExceeded) as error:
            task = replace(self._task, code=cell.code, label=cell.label)
            return _refused(error, task, self._grant, self._variant, time.monotonic() - began)
        return _told(self._session.run(replace(cell, code=compiled.code), watch), compiled)

    def kill(self) -> None:
        """See `OpenSession.kill`."""
        self._session.kill()

    def close(self) -> None:
        """See `OpenSession.close`."""
        self._session.close()


def _told(result: Result, compiled: Compiled) -> Result:
    if not isinstance(result.error, GuestError):
        return result
    return replace(result, error=compiled.told(result.error))


def _refused(error: GuestError | LimitExceeded, task: Task, grant: Grant, variant: str, wall_s: float) -> Result:
    """Return the result of a task that never came to run."""
    transcript = Transcript("reply", {}, b"", b"", wall_s, ChildUsage(0.0, None), None)
    result = to_result(
        transcript,
        grant,
        language=task.language,
        code_bytes=len(task.code),
        runtime="v8",
        variant=variant,
        queue_s=0.0,
        around=NOTHING_RAN,
    )
    return replace(result, error=error)


def create(size: PoolSize, settings: RuntimeSettings) -> V8Runtime:
    """Make the runtime as the operator wants it."""
    return V8Runtime(size, hosts=settings.hosts, cores=settings.cores)
