"""Trust levels and the grant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import CapabilityDenied, InvalidPermissions, TrustViolation
from runvisor.policies.permissions import Filesystem, Network, Permissions
from runvisor.policies.trust import CEILINGS, Trust, resolve_grant
from tests.policies.test_permissions import permissions

levels = st.sampled_from(Trust)


@given(permissions, levels, levels, st.none() | permissions)
def test_a_grant_stays_under_every_ceiling_and_claims_no_more_than_the_principal_holds(
    asked: Permissions, trust: Trust, held: Trust, own: Permissions | None
) -> None:
    arguments: dict[str, Any] = {"principal": "p", "trust_ceiling": held, "permission_ceiling": own}
    if trust > held:
        for on_excess in ("refuse", "narrow"):
            with pytest.raises(TrustViolation):
                resolve_grant(asked, trust, on_excess=on_excess, **arguments)
        return
    grant = resolve_grant(asked, trust, on_excess="narrow", **arguments)
    assert grant.permissions.excess_over(CEILINGS[trust]) == ()
    assert grant.permissions.excess_over(asked) == ()
    if own is not None:
        assert grant.permissions.excess_over(own) == ()
        assert own.cpu_s is None or (grant.permissions.cpu_s is not None and grant.permissions.cpu_s <= own.cpu_s)
    if grant.narrowed:
        with pytest.raises(CapabilityDenied) as caught:
            resolve_grant(asked, trust, **arguments)
        assert caught.value.details["excess"] == list(grant.narrowed)
    else:
        assert resolve_grant(asked, trust, **arguments) == grant


def test_untrusted_code_gets_no_network_no_files_and_no_processes() -> None:
    for asked in (
        Permissions(network=Network(("example.com",))),
        Permissions(filesystem=Filesystem(read=("/srv/**",))),
        Permissions(filesystem=Filesystem(write=("/srv/**",))),
        Permissions(processes=1),
    ):
        with pytest.raises(CapabilityDenied):
            resolve_grant(asked, Trust.UNTRUSTED, principal="p", trust_ceiling=Trust.TRUSTED)


def test_a_principals_own_ceiling_binds_trusted_code_too() -> None:
    with pytest.raises(CapabilityDenied, match="timeout_s"):
        resolve_grant(
            Permissions(timeout_s=60),
            Trust.TRUSTED,
            principal="p",
            trust_ceiling=Trust.TRUSTED,
            permission_ceiling=Permissions(timeout_s=5),
        )


def test_a_principals_limit_holds_also_for_code_that_asks_for_none() -> None:
    grant = resolve_grant(
        Permissions(),
        Trust.TRUSTED,
        principal="p",
        trust_ceiling=Trust.TRUSTED,
        permission_ceiling=Permissions(cpu_s=0.5),
    )
    assert grant.permissions.cpu_s == 0.5


def test_each_level_may_have_at_least_what_the_one_below_may() -> None:
    assert CEILINGS[Trust.UNTRUSTED].excess_over(CEILINGS[Trust.VERIFIED]) == ()
    assert CEILINGS[Trust.VERIFIED].excess_over(CEILINGS[Trust.TRUSTED]) == ()
    assert list(Trust) == sorted(Trust)


def test_levels_are_read_by_name() -> None:
    assert [Trust.parse(level.label) for level in Trust] == list(Trust)
    assert Trust.parse(Trust.VERIFIED) is Trust.VERIFIED
    for text in ("root", "", "2"):
        with pytest.raises(InvalidPermissions):
            Trust.parse(text)
