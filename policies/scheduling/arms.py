"""Arms: the (runtime, variant) pairs a task may run on, and what rules one out.

Eligibility comes before any learning and is never relaxed by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from runvisor.policies.permissions import Permissions
from runvisor.policies.trust import Grant, Trust

_ALWAYS_ENFORCED: Final = frozenset({"memory_bytes", "timeout_s", "output_bytes", "disk_bytes", "processes"})
_METERED: Final = _ALWAYS_ENFORCED | {"instructions", "deterministic"}
_CHANGING: Final = frozenset({"filesystem", "network", "tools"})
"""What answers differently from run to run."""
_PROCESS: Final = _ALWAYS_ENFORCED | {"cpu_s", "env"}


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to run a task."""

    runtime: str
    variant: str
    languages: frozenset[str]
    enforces: frozenset[str]
    """Names of the permissions that it can grant or bound as asked."""
    min_trust: Trust = Trust.UNTRUSTED
    """The least trust of code that may run on it."""
    in_batches: bool = False
    """Its executions are so short that many of one program are better asked for at once."""
    has_profiles: bool = False
    """A task may choose by name what it finds loaded."""

    name: str = field(init=False)
    """``runtime/variant``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.runtime}/{self.variant}")


ARMS: Final = (
    Arm("python", "native", frozenset({"python"}), _PROCESS | {"filesystem", "network"}, has_profiles=True),
    Arm("v8", "isolate", frozenset({"javascript", "typescript"}), _ALWAYS_ENFORCED | {"cpu_s", "network"}),
    Arm(
        "wasm",
        "module",
        frozenset({"wasm", "wat", "c", "cpp", "zig", "go", "rust"}),
        _METERED | {"env", "filesystem", "network"},
        in_batches=True,
    ),
    Arm("ebpf", "record", frozenset({"c-record"}), _ALWAYS_ENFORCED, Trust.VERIFIED),
    Arm("wasm", "record", frozenset({"c-record"}), _ALWAYS_ENFORCED),
    Arm("python", "jit", frozenset({"python"}), _PROCESS | {"filesystem", "network"}, has_profiles=True),
    Arm("wasm", "quickjs", frozenset({"javascript"}), _ALWAYS_ENFORCED | {"instructions"}),
    Arm("wasm", "cpython", frozenset({"python"}), _METERED | {"env"}),
    Arm("wasm", "component", frozenset({"component"}), _METERED),
    Arm("ebpf", "packet", frozenset({"c-packet"}), _ALWAYS_ENFORCED, Trust.VERIFIED),
)
"""The arms that ship with runvisor, in order of preference at equal score."""


def asked_beyond_defaults(permissions: Permissions) -> dict[str, str]:
    """Name what a grant holds that an arm must be able to enforce, with how to say it.

    Example:
        >>> asked_beyond_defaults(Permissions(cpu_s=1.0))
        {'cpu_s': 'cpu_s=1.0'}
    """
    asked: dict[str, str] = {}
    for name in ("cpu_s", "instructions", "stack_bytes"):
        if (limit := getattr(permissions, name)) is not None:
            asked[name] = f"{name}={limit}"
    if permissions.deterministic:
        asked["deterministic"] = "deterministic=True"
    if permissions.processes:
        asked["processes_granted"] = f"processes={permissions.processes}"
    for name, items in (
        ("filesystem", permissions.filesystem.read + permissions.filesystem.write),
        ("network", permissions.network.allowed_hosts),
        ("tools", permissions.tools),
        ("env", tuple(permissions.env)),
    ):
        if items:
            asked[name] = f"{name} ({', '.join(items)})"
    return asked


def unfit_for_profile(arms: Iterable[Arm], profile: str) -> dict[str, str]:
    """Return, by the name of an arm, why it cannot give a task the profile that it asks for.

    Example:
        >>> unfit_for_profile(ARMS[:2], "bare")
        {'v8/isolate': "it has no profiles, and the task asks for 'bare'"}
        >>> unfit_for_profile(ARMS, "")
        {}
    """
    if not profile:
        return {}
    return {arm.name: f"it has no profiles, and the task asks for {profile!r}" for arm in arms if not arm.has_profiles}


def exclusion(
    arm: Arm, language: str, grant: Grant, unavailable: Mapping[str, str], *, allow_untrusted_bpf: bool = False
) -> str | None:
    """Say why an arm may not run a task, or None if it may.

    Args:
        arm: The candidate.
        language: The task's language.
        grant: What the task was granted.
        unavailable: Reason by runtime or by ``runtime/variant`` name, where one cannot run here.
        allow_untrusted_bpf: The operator lets untrusted programs into the kernel.

    Example:
        >>> grant = Grant("p", Trust.UNTRUSTED, Permissions())
        >>> exclusion(ARMS[3], "c-record", grant, {})
        'untrusted code may not run there (it takes verified)'
    """
    asked = asked_beyond_defaults(grant.permissions)
    return _exclusion(arm, language, grant.trust, asked, unavailable, allow_untrusted_bpf=allow_untrusted_bpf)


def _exclusion(
    arm: Arm,
    language: str,
    trust: Trust,
    asked: Mapping[str, str],
    unavailable: Mapping[str, str],
    *,
    allow_untrusted_bpf: bool,
) -> str | None:
    if language not in arm.languages:
        return f"it does not run {language}"
    min_trust = Trust.UNTRUSTED if allow_untrusted_bpf and arm.runtime == "ebpf" else arm.min_trust
    if trust < min_trust:
        return f"{trust.label} code may not run there (it takes {min_trust.label})"
    for name, text in asked.items():
        if name not in arm.enforces:
            return f"it cannot enforce {text}"
    if "deterministic" in asked and not _CHANGING.isdisjoint(asked):
        return f"it cannot be deterministic with {asked[min(_CHANGING & asked.keys())]}"
    for name in (arm.name, arm.runtime):
        if name in unavailable:
            return unavailable[name] or "it is not available here"
    return None


def split_eligible(
    arms: Iterable[Arm],
    language: str,
    grant: Grant,
    unavailable: Mapping[str, str],
    *,
    allow_untrusted_bpf: bool = False,
) -> tuple[tuple[Arm, ...], dict[str, str]]:
    """Divide the arms into those that may run the task and the reasons against the others.

    Arms for other languages are left out of the reasons: nobody asks why.
    """
    asked = asked_beyond_defaults(grant.permissions)
    eligible: list[Arm] = []
    excluded: dict[str, str] = {}
    for arm in arms:
        if language not in arm.languages:
            continue
        reason = _exclusion(arm, language, grant.trust, asked, unavailable, allow_untrusted_bpf=allow_untrusted_bpf)
        if reason is None:
            eligible.append(arm)
        else:
            excluded[arm.name] = reason
    return tuple(eligible), excluded
