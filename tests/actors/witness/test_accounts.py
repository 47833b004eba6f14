"""An account is one execution's alone, whatever earlier ones still do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.jail.unified import unified_parent
from runvisor.actors.witness.accounts import Account, Accounts, NotCounted
from runvisor.actors.witness.witness import Witness

_READER = "import os\nwhile os.read(0, 100): os.write(1, b'.')"
_SOON_S = 20.0
NOBODY = 1 << 42


@pytest.fixture
def accounts(witness: Witness) -> Iterator[Accounts]:
    """Exactly one account, so that the next execution has the one of the last."""
    made = Accounts.connect(witness.path, 1)
    yield made
    made.close()


@pytest.fixture
def reader() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process in a group of its own that waits in read(2), and the group's id."""
    parent = unified_parent()
    assert parent is not None
    group = parent / f"runvisor-{os.getpid()}-0-test"
    group.mkdir()
    with subprocess.Popen([sys.executable, "-c", _READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            (group / "cgroup.procs").write_text(str(process.pid))
            say(process, b"1")
            yield process, group.stat().st_ino
        finally:
            process.kill()
    _remove(group)


def _remove(group: Path) -> None:
    deadline = time.monotonic() + _SOON_S
    while True:
        try:
            group.rmdir()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        else:
            return


def say(process: subprocess.Popen[bytes], word: bytes) -> None:
    """Have the reader read, and wait until it waits in its next read(2); see proc_pid_syscall(5)."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(word)
    process.stdin.flush()
    assert os.read(process.stdout.fileno(), 1) == b"."
    deadline = time.monotonic() + _SOON_S
    while not Path(f"/proc/{process.pid}/syscall").read_text().startswith("0 "):
        assert time.monotonic() < deadline
        time.sleep(0.002)


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
