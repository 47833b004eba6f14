"""The Python runtime: full CPython with the scientific stack, one fresh process per task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.python.profiles import PROFILES, PythonProfile, elsewhere
from runvisor.actors.runtime import PoolSize
from runvisor.actors.settings import RuntimeSettings
from runvisor.policies.errors import ConfigError


class PythonRuntime(JailedRuntime):
    """Python in pre-forked children that a zygote has preloaded and sealed.

    Args:
        size: How many instances to keep.
        profile: What the zygote preloads: one of your own, or a name of `PROFILES`.
        others: Profiles that run beside this one; an import that fails here names the one that has it.
        hosts: The operator's table of pinned hosts.
        cores: How many cores' worth of CPU time a task may use at once.

    Raises:
        ConfigError: There is no such profile, or its virtual environment cannot be used.
    """

    def __init__(
        self,
        size: PoolSize | None = None,
        profile: str | PythonProfile = "science",
        others: Iterable[PythonProfile] = (),
        *,
        hosts: Mapping[str, str] | None = None,
        cores: float | None = 1.0,
    ) -> None:
        super().__init__("python", spec_of(_named(profile), others, cores), size or PoolSize(), hosts)


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


def _named(profile: str | PythonProfile) -> PythonProfile:
    if isinstance(profile, PythonProfile):
        return profile
    if profile not in PROFILES:
        raise ConfigError(f"there is no profile {profile!r}", "profile", f"choose one of {', '.join(PROFILES)}")
    return PROFILES[profile]


def create(size: PoolSize, settings: RuntimeSettings) -> PythonRuntime:
    """Make the runtime as the operator wants it."""
    return PythonRuntime(size, settings.python_profile, hosts=settings.hosts, cores=settings.cores)
