"""The Python runtime: full CPython with the packages of a profile, one fresh process per task."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.python.profile_pools import ProfilePools
from runvisor.actors.python.profiles import PROFILES, PythonProfile, all_profiles, elsewhere
from runvisor.actors.runtime import Cell, Load, OpenSession, PoolSize, Watch
from runvisor.actors.settings import RuntimeSettings
from runvisor.policies.errors import UnknownProfile
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant


class PythonRuntime(JailedRuntime):
    """Python in pre-forked children that a zygote has preloaded and sealed.

    The default profile's children wait from the start; those of another come
    with its first task, which is a cold one.

    Args:
        size: How many instances to keep; of each other profile in use, one is kept warm.
        profile: What a task finds loaded that names none: one of your own, or a name of `PROFILES`.
        others: Further profiles that a task may name; an import that fails names the one that has it.
        hosts: The operator's table of pinned hosts.
        cores: How many cores' worth of CPU time a task may use at once.
        max_profiles: How many profiles have processes at once, the default one included.

    Raises:
        ConfigError: There is no such profile, its virtual environment cannot be used, or two have one name.
    """

    def __init__(
        self,
        size: PoolSize | None = None,
        profile: str | PythonProfile = "science",
        others: Iterable[PythonProfile] = (),
        *,
        hosts: Mapping[str, str] | None = None,
        cores: float | None = 1.0,
        max_profiles: int = 4,
    ) -> None:
        size = size or PoolSize()
        self._profiles = all_profiles(profile, others)
        default = self._profile(profile.name if isinstance(profile, PythonProfile) else profile)
        super().__init__("python", spec_of(default, self._profiles.values(), cores), size, hosts)
        self._default = default.name

        def make(name: str) -> JailedRuntime:
            spec = spec_of(self._profiles[name], self._profiles.values(), cores)
            made = JailedRuntime("python", spec, replace(size, minimum=1), hosts)
            made.on_connection = self.on_connection
            made.witness = self.witness
            return made

        self._others = ProfilePools(make, max(1, max_profiles - 1), size)

    def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
        """See `Runtime.execute`.

        Raises:
            UnknownProfile: The task names a profile that there is not.
        """
        if task.profile in ("", self._default):
            return super().execute(task, variant, grant, watch)
        name = self._profile(task.profile).name
        asked, was_cold = time.monotonic(), name not in self._others.names()
        with self._others.use(name, watch.cancellation) as runtime:
            queue_s = time.monotonic() - asked
            result = runtime.execute(task, variant, grant, watch)
        usage = replace(result.usage, queue_s=result.usage.queue_s + queue_s)
        return replace(result, usage=replace(usage, start_kind="cold") if was_cold else usage)

    def open_session(self, task: Task, variant: str, grant: Grant) -> OpenSession:  # type: ignore[override]
        """See `SessionRuntime.open_session`; its profile's processes live as long as it.

        Raises:
            UnknownProfile: The task names a profile that there is not.
        """
        if task.profile in ("", self._default):
            return super().open_session(task, variant, grant)
        with ExitStack() as stack:
            runtime = stack.enter_context(self._others.use(self._profile(task.profile).name))
            session = runtime.open_session(task, variant, grant)
            return _ProfileSession(session, stack.pop_all())

    def load(self) -> Load:
        """See `Runtime.load`."""
        own, others = super().load(), self._others.load()
        return Load(own.idle + others.idle, own.busy + others.busy, own.waiting + others.waiting)

    def close(self) -> None:
        """See `Runtime.close`."""
        self._others.close()
        super().close()

    def _profile(self, name: str) -> PythonProfile:
        found = self._profiles.get(name)
        if found is None:
            known = ", ".join(sorted(self._profiles))
            raise UnknownProfile(f"there is no profile {name!r}", "profile", f"choose one of {known}")
        return found


class _ProfileSession:
    """A session that keeps its profile's processes. See `OpenSession`."""

    def __init__(self, session: OpenSession, lease: ExitStack) -> None:
        self._session = session
        self._lease = lease

    @property
    def ended(self) -> str:
        """See `OpenSession.ended`."""
        return self._session.ended

    def run(self, cell: Cell, watch: Watch) -> Result:
        """See `OpenSession.run`."""
        return self._session.run(cell, watch)

    def kill(self) -> None:
        """See `OpenSession.kill`."""
        self._session.kill()

    def close(self) -> None:
        """See `OpenSession.close`."""
        self._session.close()
        self._lease.close()


def spec_of(profile: PythonProfile, others: Iterable[PythonProfile] = (), cores: float | None = 1.0) -> JailSpec:
    """Return the jail of a profile's zygote.

    Args:
        profile: What it preloads.
        others: Profiles that run beside it.
        cores: How many cores' worth of CPU time a task may use at once.

    Example:
        >>> spec_of(PROFILES["bare"]).options["modules"]
        []
    """
    site = profile.site_packages()
    return JailSpec(
        "python" if profile.name == "science" else f"python-{profile.name}",
        "runvisor.actors.python.guest",
        options={
            "modules": list(profile.packages),
            "required": PROFILES.get(profile.name) != profile,
            "site": list(site),
            "elsewhere": elsewhere(profile, others),
        },
        readable=site,
        cores=cores,
    )


def create(size: PoolSize, settings: RuntimeSettings) -> PythonRuntime:
    """Make the runtime as the operator wants it."""
    return PythonRuntime(
        size,
        settings.python_profile,
        settings.python_profiles,
        hosts=settings.hosts,
        cores=settings.cores,
        max_profiles=settings.max_python_profiles,
    )
