"""Trust levels, their ceilings, and the grant one execution really gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal

from runvisor.policies.errors import CapabilityDenied, InvalidPermissions, TrustViolation
from runvisor.policies.permissions import ANYTHING, Filesystem, GiB, MiB, Network, Permissions

OnExcess = Literal["refuse", "narrow"]


class Trust(IntEnum):
    """How far a principal vouches for code; the order is meant (`UNTRUSTED` is least)."""

    UNTRUSTED = 0
    """The default: no network, no files outside its scratch, never the host's kernel as a target."""
    VERIFIED = 1
    """Code someone vouches for: declared files and hosts, kernel programs."""
    TRUSTED = 2
    """The principal's own code: anything that it declares; still in its own process."""

    @classmethod
    def parse(cls, text: str | Trust) -> Trust:
        """Read a trust level by name.

        Raises:
            InvalidPermissions: No such level.

        Example:
            >>> Trust.parse("verified")
            <Trust.VERIFIED: 1>
        """
        if isinstance(text, Trust):
            return text
        try:
            return cls[str(text).upper()]
        except KeyError:
            raise InvalidPermissions(
                f"{text!r} is not a trust level", "trust", "use untrusted, verified or trusted"
            ) from None

    @property
    def label(self) -> str:
        """The level's name as users write it."""
        return self.name.lower()


def _unbounded(**limits: Any) -> Permissions:
    every = (ANYTHING,)
    return Permissions(filesystem=Filesystem(every, every), network=Network(every), tools=every, **limits)


CEILINGS: Final[Mapping[Trust, Permissions]] = {
    Trust.UNTRUSTED: Permissions(
        memory_bytes=4 * GiB, timeout_s=600.0, output_bytes=64 * MiB, disk_bytes=1 * GiB, tools=(ANYTHING,)
    ),
    Trust.VERIFIED: _unbounded(
        memory_bytes=16 * GiB, timeout_s=3600.0, output_bytes=256 * MiB, disk_bytes=16 * GiB, processes=64
    ),
    Trust.TRUSTED: _unbounded(
        memory_bytes=1024 * GiB, timeout_s=7 * 86400.0, output_bytes=1 * GiB, disk_bytes=1024 * GiB, processes=4096
    ),
}
"""The most that code of each level may be granted, whoever asks."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one execution really gets, after every ceiling has been applied."""

    principal: str
    """On whose behalf it runs; executions of different principals share nothing."""
    trust: Trust
    permissions: Permissions
    narrowed: tuple[str, ...] = ()
    """What was asked for and taken away, one sentence each."""


def resolve_grant(
    asked: Permissions,
    trust: Trust,
    *,
    principal: str,
    trust_ceiling: Trust,
    permission_ceiling: Permissions | None = None,
    on_excess: OnExcess = "refuse",
    ceilings: Mapping[Trust, Permissions] = CEILINGS,
) -> Grant:
    """Compute the grant, or refuse with the reasons.

    Clients and pools call the same function: a client's answer is a proposal,
    the pool's is the one that counts.

    Args:
        asked: The task's request.
        trust: The trust claimed for the code.
        principal: Who asks.
        trust_ceiling: The most trust this principal may claim.
        permission_ceiling: The principal's own ceiling; None is no further bound.
        on_excess: ``"refuse"`` raises; ``"narrow"`` takes the excess away and lists it.
        ceilings: The operator's table per trust level.

    Raises:
        TrustViolation: More trust is claimed than the principal holds (never narrowed).
        CapabilityDenied: More is asked than a ceiling allows.

    Example:
        >>> grant = resolve_grant(Permissions(timeout_s=9999), Trust.UNTRUSTED, principal="p",
        ...                       trust_ceiling=Trust.TRUSTED, on_excess="narrow")
        >>> grant.permissions.timeout_s, grant.narrowed
        (600.0, ('timeout_s: 9999 is more than 600.0',))
    """
    if trust > trust_ceiling:
        raise TrustViolation(
            f"{principal} may claim at most {trust_ceiling.label} trust, not {trust.label}",
            "trust",
            "run it as less trusted, or ask the operator for a higher ceiling",
        )
    bounds = [ceilings[trust]] + ([permission_ceiling] if permission_ceiling is not None else [])
    excess = tuple(line for bound in bounds for line in asked.excess_over(bound))
    if excess and on_excess == "refuse":
        raise CapabilityDenied(
            f"{trust.label} code may not have {excess[0]}",
            excess[0].partition(":")[0],
            "ask for less, claim more trust, or pass on_excess='narrow'",
            {"excess": list(excess)},
        )
    granted = asked
    for bound in bounds:
        granted = granted.narrowed_to(bound)
    return Grant(principal, trust, granted, excess)
