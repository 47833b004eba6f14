"""An account is one execution's alone, whatever earlier ones still do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from runvisor.actors.jail.seccomp import FilterKind
from runvisor.actors.witness.accounts import Account, Accounts, NotCounted
from runvisor.actors.witness.witness import Witness
from tests.actors.witness.processes import say, spinning

_SOON_S = 20.0
NOBODY = 1 << 42


@pytest.fixture
def accounts(witness: Witness) -> Iterator[Accounts]:
    """Exactly one account, so that the next execution has the one of the last."""
    made = Accounts.connect(witness.path, 1)
    yield made
    made.close()


def opened(accounts: Accounts, identity: int) -> Account:
    deadline = time.monotonic() + _SOON_S
    while True:
        try:
            return accounts.open(identity)
        except NotCounted:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_a_call_that_began_under_an_account_does_not_end_in_the_next_ones(
    accounts: Accounts, reader: tuple[subprocess.Popen[bytes], int]
) -> None:
    process, identity = reader
    first = opened(accounts, identity)
    say(process, b"2")  # the read that it waits in now began under the first account
    first.close()
    other = opened(accounts, NOBODY)
    try:
        say(process, b"345")
        assert other.usage().read_bytes == 0
        assert other.usage().syscalls == 0
    finally:
        other.close()


def test_a_process_is_counted_again_under_its_next_account(
    accounts: Accounts, reader: tuple[subprocess.Popen[bytes], int]
) -> None:
    process, identity = reader
    for word in (b"12", b"3456"):
        account = opened(accounts, identity)
        say(process, b"-")  # the read that it waited in began before
        before = account.usage()
        say(process, word)
        assert account.usage().read_bytes - before.read_bytes == len(word)
        account.close()


def test_what_never_pauses_is_counted_at_once_and_struck_off_for_good(accounts: Accounts) -> None:
    with spinning() as identity:
        for _ in range(5):
            account = opened(accounts, identity)
            assert any(account.usage().syscalls for _ in range(5000))
            account.close()
            other = opened(accounts, NOBODY)
            try:
                assert not any(other.usage().syscalls for _ in range(100))
            finally:
                other.close()


def test_who_is_struck_off_does_not_lose_the_account_that_it_was_given_next(witness: Witness) -> None:
    accounts = Accounts.connect(witness.path, 8)
    account = opened(accounts, NOBODY)
    try:
        for _ in range(100):
            account.close()
            account = opened(accounts, NOBODY)
            held = [opened(accounts, NOBODY + other) for other in range(1, 8)]  # all: the last one was struck off
            assert NOBODY in dict(witness.registered())
            for each in held:
                each.close()
    finally:
        account.close()
        accounts.close()


def test_a_sandbox_behind_a_filter_that_the_programs_do_not_know_is_not_counted(accounts: Accounts) -> None:
    with pytest.raises(NotCounted, match="filter"):
        accounts.open(NOBODY, FilterKind("compiler", networked=False))
    opened(accounts, NOBODY).close()
