"""What the operator decides about runtimes, once, when a supervisor starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from runvisor.actors.python.profiles import PythonProfile
from runvisor.policies.errors import ConfigError
from runvisor.policies.values import is_number

Observability = Literal["off", "kernel"]
MIN_CORES = 0.01
"""The smallest share that the kernel keeps."""


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """The same for every pool; each runtime reads what concerns it."""

    python_profile: str | PythonProfile = "science"
    """What a Python task finds loaded that names no profile: ``bare``, ``science``, or one of your own."""
    python_profiles: tuple[PythonProfile, ...] = ()
    """Profiles of your own that a task may name, beside ``bare`` and ``science``. The processes of each start
    with its first task, and end when it was idle for ten minutes."""
    max_python_profiles: int = 4
    """How many profiles have processes at once, the default one included; the one unused longest makes room."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Hosts whose places are pinned, ``name`` or ``name:port`` to ``address`` or ``address:port``. They
    need not be global, as all others must; a grant must still name them."""
    cores: float | None = 1.0
    """How many cores' worth of CPU time one Python or JavaScript execution may use at once, in all its
    threads; None is no bound. Kept by a cpu cgroup, where this user can make one (see a result's ``layers``)."""
    observability: Observability = "off"
    """``kernel``: programs in the kernel count what each Python and JavaScript execution does (see docs/witness.md).
    Every process of the machine then pays some 100 ns per system call."""
    accept_weak_isolation: bool = False
    """Run untrusted code where this user cannot have every layer that it should have around it."""

    def __post_init__(self) -> None:
        if not all(isinstance(profile, PythonProfile) for profile in self.python_profiles):
            raise ConfigError("python_profiles holds what is no PythonProfile", "python_profiles")
        if self.observability not in get_args(Observability):
            raise ConfigError(f"{self.observability!r} is no observability", "observability", 'give "off" or "kernel"')
        if isinstance(self.max_python_profiles, bool) or self.max_python_profiles < 2:
            raise ConfigError("fewer than 2 profiles leave no room beside the default", "max_python_profiles")
        if self.cores is not None and not (is_number(self.cores) and MIN_CORES <= self.cores < float("inf")):
            raise ConfigError(f"{self.cores!r} is no number of cores", "cores", f"give at least {MIN_CORES}, or None")
