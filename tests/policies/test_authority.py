"""The token that says what a principal may claim."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.authority import MIN_KEY_BYTES, Authority
from runvisor.policies.errors import ProtocolError, TrustViolation
from runvisor.policies.permissions import Permissions
from runvisor.policies.trust import Trust
from runvisor.policies.values import pack
from tests.policies.test_permissions import permissions

KEY = bytes(range(32))
TOKEN = Authority("me", Trust.VERIFIED, None, expires_at=100.0, epoch=3).seal(KEY)


@given(st.text(), st.sampled_from(Trust), st.none() | permissions, st.floats(1, 1e12), st.integers(0, 2**63))
def test_what_was_sealed_is_unsealed(
    principal: str, trust: Trust, own: Permissions | None, expires_at: float, epoch: int
) -> None:
    authority = Authority(principal, trust, own, expires_at, epoch)
    assert Authority.unseal(authority.seal(KEY), KEY, now=0.0, min_epoch=epoch) == authority


@given(st.integers(0, len(TOKEN) * 8 - 1))
def test_a_token_with_one_bit_changed_never_unseals(bit: int) -> None:
    changed = bytearray(TOKEN)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TrustViolation, match="not sealed"):
        Authority.unseal(bytes(changed), KEY, now=0.0)


@given(st.integers(0, len(TOKEN) - 1), st.binary(max_size=4))
def test_a_token_cut_or_lengthened_never_unseals(size: int, tail: bytes) -> None:
    if TOKEN[:size] + tail != TOKEN:
        with pytest.raises(TrustViolation):
            Authority.unseal(TOKEN[:size] + tail, KEY, now=0.0)
    with pytest.raises(TrustViolation):
        Authority.unseal(TOKEN + b"\0" + tail, KEY, now=0.0)


@given(st.binary(max_size=200))
def test_a_forged_token_never_unseals(token: bytes) -> None:
    with pytest.raises(TrustViolation):
        Authority.unseal(token, KEY, now=0.0)


@given(st.binary(min_size=MIN_KEY_BYTES, max_size=64).filter(lambda key: key != KEY))
def test_another_key_does_not_unseal(key: bytes) -> None:
    with pytest.raises(TrustViolation):
        Authority.unseal(TOKEN, key, now=0.0)


def test_it_expires_and_an_old_supervisors_token_is_refused() -> None:
    assert Authority.unseal(TOKEN, KEY, now=99.9, min_epoch=3).principal == "me"
    with pytest.raises(TrustViolation, match="expired"):
        Authority.unseal(TOKEN, KEY, now=100.0)
    with pytest.raises(TrustViolation, match="old supervisor"):
        Authority.unseal(TOKEN, KEY, now=0.0, min_epoch=4)


def test_an_expiry_that_is_no_number_has_passed() -> None:
    token = Authority("me", Trust.TRUSTED, None, expires_at=float("nan")).seal(KEY)
    with pytest.raises(TrustViolation, match="expired"):
        Authority.unseal(token, KEY, now=0.0)


def test_a_short_key_neither_seals_nor_unseals() -> None:
    """A pool started without its key must not accept what anyone can forge."""
    body = TOKEN[32:]
    for key in (b"", b"short", bytes(MIN_KEY_BYTES - 1)):
        with pytest.raises(ValueError, match="at least 32"):
            Authority("me", Trust.TRUSTED, None, 1.0).seal(key)
        with pytest.raises(ValueError, match="at least 32"):
            Authority.unseal(hmac.digest(key, body, hashlib.sha256) + body, key, now=0.0)


@pytest.mark.parametrize("claims", [None, [], {}, {"principal": "p"}, {"permissions": 5}, b"x"])
def test_sealed_nonsense_is_a_protocol_error(claims: object) -> None:
    body = pack(claims)
    with pytest.raises(ProtocolError):
        Authority.unseal(hmac.digest(KEY, body, hashlib.sha256) + body, KEY, now=0.0)
