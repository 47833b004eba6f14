"""Which arms may run a task: computed once for tasks that ask for the same.

The answer depends on nothing but what is in the key, and the arms themselves:
it is kept for the table of all arms only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runvisor.policies.scheduling.arms import ARMS, Arm, split_eligible
from runvisor.policies.scheduling.decision import Candidate
from runvisor.policies.trust import Grant

_KEPT: Final = 512


@dataclass(frozen=True, slots=True)
class Field:
    """The arms that may run a task; it depends on the task and the cluster only, so it may be kept."""

    eligible: tuple[Arm, ...]
    excluded: tuple[Candidate, ...]
    """Those that run the language and may not run the task, with the reason."""
    found: str = ""
    """What was found in the code that bears on the choice."""


_known: dict[tuple[Any, ...], Field] = {}


def eligibility_of(
    arms: tuple[Arm, ...],
    language: str,
    grant: Grant,
    unavailable: Mapping[str, str],
    allow_untrusted_bpf: bool,
) -> Field:
    """Divide arms as `split_eligible` does, or return what it said before of the same.

    Example:
        >>> from runvisor.policies.permissions import Permissions
        >>> from runvisor.policies.scheduling.arms import ARMS
        >>> from runvisor.policies.trust import Trust
        >>> grant = Grant("p", Trust.UNTRUSTED, Permissions())
        >>> [arm.name for arm in eligibility_of(ARMS, "c-record", grant, {}, False).eligible]
        ['wasm/record']
    """
    if arms is not ARMS:  # a choice of arms is made anew for each task: it would be kept and never found again
        return _divided(arms, language, grant, unavailable, allow_untrusted_bpf)
    asked = grant.permissions
    key = (
        language,
        grant.trust,
        asked.cpu_s,
        asked.instructions,
        asked.stack_bytes,
        asked.deterministic,
        asked.processes,
        asked.filesystem.read,
        asked.filesystem.write,
        asked.network.allowed_hosts,
        asked.tools,
        tuple(asked.env) if asked.env else (),
        tuple(unavailable.items()) if unavailable else (),
        allow_untrusted_bpf,
    )
    known = _known.get(key)
    if known is None:
        known = _divided(arms, language, grant, unavailable, allow_untrusted_bpf)
        if len(_known) >= _KEPT:
            _known.clear()
        _known[key] = known
    return known


def _divided(
    arms: tuple[Arm, ...], language: str, grant: Grant, unavailable: Mapping[str, str], allow_untrusted_bpf: bool
) -> Field:
    eligible, reasons = split_eligible(arms, language, grant, unavailable, allow_untrusted_bpf=allow_untrusted_bpf)
    return Field(eligible, tuple(Candidate(name, excluded_because=reason) for name, reason in reasons.items()))
