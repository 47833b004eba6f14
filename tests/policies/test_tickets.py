"""Tickets: whose a process is, as one pool says it to another."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.authority import Authority
from runvisor.policies.errors import RunvisorError, TrustViolation
from runvisor.policies.tickets import ProcessTicket
from runvisor.policies.trust import Trust

KEY = bytes(range(32))
TICKET = ProcessTicket("ada", 42, "boot 7", 100.0)


def test_a_ticket_comes_back_until_it_expires() -> None:
    assert ProcessTicket.unseal(TICKET.seal(KEY), KEY, now=99.9) == TICKET
    with pytest.raises(TrustViolation, match="expired"):
        ProcessTicket.unseal(TICKET.seal(KEY), KEY, now=100.0)


@pytest.mark.parametrize("at", [0, 31, 32, 40, -1])
def test_a_ticket_that_was_changed_is_refused(at: int) -> None:
    sealed = bytearray(TICKET.seal(KEY))
    sealed[at] ^= 1
    with pytest.raises(TrustViolation, match="not sealed"):
        ProcessTicket.unseal(bytes(sealed), KEY, now=1.0)


def test_another_key_or_another_pid_does_not_pass() -> None:
    sealed = TICKET.seal(KEY)
    with pytest.raises(TrustViolation):
        ProcessTicket.unseal(sealed, bytes(32), now=1.0)
    with pytest.raises(TrustViolation):
        ProcessTicket.unseal(sealed[:32] + replace(TICKET, pid=1).seal(KEY)[32:], KEY, now=1.0)


def test_a_ticket_is_no_authority_and_an_authority_no_ticket() -> None:
    authority = Authority("ada", Trust.TRUSTED, None, 100.0).seal(KEY)
    with pytest.raises(TrustViolation):
        ProcessTicket.unseal(authority, KEY, now=1.0)
    with pytest.raises(TrustViolation):
        Authority.unseal(TICKET.seal(KEY), KEY, now=1.0)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(RunvisorError):
        ProcessTicket.unseal(noise, KEY, now=1.0)
