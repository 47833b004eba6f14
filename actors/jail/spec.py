"""What a jail is made of: computed once per zygote, before any guest is seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from runvisor.policies.permissions import MiB

SyscallList = Literal["guest", "engine", "bpf", "compiler"]

SECCOMP: Final = "seccomp allow-list"
MEMORY_CGROUP: Final = "memory cgroup"
CPU_CGROUP: Final = "cpu cgroup"
LAYERS: Final = (
    "pid namespace",
    "mount namespace, read-only root",
    "network namespace, empty",
    "ipc and uts namespaces",
    "rlimits",
    "no_new_privs",
    "landlock",
    "own uid",
    "no capabilities",
    SECCOMP,
    MEMORY_CGROUP,
    CPU_CGROUP,
)
"""What root gives a child, in the order it is applied."""
USER_NAMESPACE: Final = "user namespace"
MEMORY_RLIMIT: Final = "memory rlimit"
EGRESS_FILTER: Final = "kernel egress filter"
"""Around a child whose grant names hosts, where the kernel lets us; see `actors.jail.egress.cgroup_filter`."""
ALL_LAYERS: Final = (USER_NAMESPACE, *LAYERS, MEMORY_RLIMIT, EGRESS_FILTER)
"""Every layer there is; a child reports those that it really has."""


@dataclass(frozen=True, slots=True)
class JailSpec:
    """The part of a jail that depends on the kind of guest, not on a grant.

    Example:
        >>> spec = JailSpec("python", "runvisor.actors.python.guest")
        >>> JailSpec.from_json(spec.to_json()) == spec
        True
    """

    name: str
    """For messages and cgroup names."""
    guest: str
    """Dotted name of the module whose ``preload``, ``prepare`` and ``serve`` run inside."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Plain data for the guest module."""
    readable: tuple[str, ...] = ()
    """Absolute host paths shown read-only at their own place, beside the system's."""
    import_from: tuple[str, ...] = ()
    """Absolute folders to import the guest module from, beside site-packages; shown read-only."""
    capabilities: frozenset[str] = frozenset()
    """Capabilities that the child keeps, by name; only our own executors keep any."""
    syscalls: SyscallList = "guest"
    """Which seccomp allow-list."""
    scratch_bytes: int = 64 * MiB
    """Size of the private tmpfs at /tmp when a spawn does not say."""
    cores: float | None = 1.0
    """How many cores' worth of CPU time a child may use at once, in all its threads; None is no bound, for
    engines that serve several executions side by side."""
    without: frozenset[str] = frozenset()
    """Names of `ALL_LAYERS` to leave out: for the tests that show what each layer is good for."""

    def __post_init__(self) -> None:
        if unknown := self.without - set(ALL_LAYERS):
            raise ValueError(f"no such layers: {', '.join(sorted(unknown))}")

    def to_json(self) -> str:
        """Return the spec as text for the zygote's command line."""
        return json.dumps(
            {
                "name": self.name,
                "guest": self.guest,
                "options": dict(self.options),
                "readable": list(self.readable),
                "import_from": list(self.import_from),
                "capabilities": sorted(self.capabilities),
                "syscalls": self.syscalls,
                "scratch_bytes": self.scratch_bytes,
                "cores": self.cores,
                "without": sorted(self.without),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> JailSpec:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        return cls(
            **{
                **data,
                "readable": tuple(data["readable"]),
                "import_from": tuple(data["import_from"]),
                "capabilities": frozenset(data["capabilities"]),
                "without": frozenset(data["without"]),
            },
        )
