"""What counts is loaded only while it is wanted, and its end is told, never taken for a count of nothing."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import Cell
from runvisor.actors.witness.accounts import Accounts, NotCounted
from runvisor.actors.witness.counting import Witnessing
from runvisor.actors.witness.programs import ACCOUNTS, PROGRAMS
from runvisor.actors.witness.witness import Witness
from runvisor.policies.errors import SpawnFailed
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Packed, pack
from tests.actors.executing import Heard, execute
from tests.actors.witness.conftest import POOL
from tests.actors.witness.loaded_programs import counting_programs, wait_until_loaded
from tests.actors.witness.processes import say
from tests.actors.witness.test_counting import GETPPID, counted, made

_SOON_S = 20.0
_CLIENT = """
import sys
from runvisor.actors.witness.accounts import Accounts
accounts = Accounts.connect(sys.argv[1], 5)
held = [accounts.open(identity) for identity in (1, 2, 3)]
print("held", flush=True)
sys.stdin.read()
"""
_IN_TWO_PARTS = f"""
import ctypes, time
call = ctypes.CDLL(None).syscall
for _ in range(10): call({GETPPID})
print("half", flush=True)
try:
    while True: time.sleep(0.01)
except KeyboardInterrupt:
    for _ in range(1000): call({GETPPID})
"""


@pytest.fixture
def own_witness() -> Iterator[Witness]:
    """One that a test may end."""
    made = Witness()
    made.start()
    yield made
    made.close()


def registered(witness: Witness) -> int:
    return len(list(witness.registered()))


def wait_until_registered(witness: Witness, count: int) -> None:
    deadline = time.monotonic() + _SOON_S
    while registered(witness) != count:
        assert time.monotonic() < deadline, f"{registered(witness)} are registered, not {count}"
        time.sleep(0.005)


def test_programs_are_loaded_from_start_to_close() -> None:
    before = counting_programs()
    witness = Witness()
    witness.start()
    assert counting_programs() == before + len(PROGRAMS)
    assert not registered(witness)
    witness.close()
    witness.close()
    wait_until_loaded(before)


def test_a_pool_lets_go_when_the_witness_closes(own_witness: Witness) -> None:
    before = counting_programs() - len(PROGRAMS)
    accounts = Accounts.connect(own_witness.path, 4)
    own_witness.close()
    wait_until_loaded(before)
    with pytest.raises(NotCounted, match="has ended"):
        accounts.open(1)


def test_counts_stay_whole_when_the_witness_is_killed_meanwhile(own_witness: Witness) -> None:
    before = counting_programs() - len(PROGRAMS)
    accounts = Accounts.connect(own_witness.path, 4)
    account = accounts.open(own_cgroup := 1 << 40)
    assert own_cgroup in dict(own_witness.registered())
    os.kill(own_witness.pid, signal.SIGKILL)
    wait_until_ended(accounts)
    assert counting_programs() == before + len(PROGRAMS)  # this pool still holds them
    assert account.usage().syscalls == 0
    account.close()
    wait_until_loaded(before)


def test_an_execution_in_flight_is_counted_whole_when_the_witness_is_killed_meanwhile(own_witness: Witness) -> None:
    runtime = PythonRuntime(POOL, "bare")
    runtime.witness = Witnessing.connect(own_witness.path, 8)
    grant = Grant("tester", Trust.UNTRUSTED, Permissions())
    watch = Heard()
    try:
        runtime.start()
        session = runtime.open_session(Task("0", "python", None, grant.permissions, grant.trust), "native", grant)
        with ThreadPoolExecutor(1) as threads:
            counting = threads.submit(session.run, Cell(_IN_TWO_PARTS, Packed(pack(None))), watch.watch)
            assert watch.printed.wait(_SOON_S)
            os.kill(own_witness.pid, signal.SIGKILL)
            own_witness.close()  # all that it does at its end is done
            watch.watch.cancellation.cancel()
            result = counting.result()
        session.close()
    finally:
        runtime.close()
        runtime.witness.close()
    assert made(counted(result), "getppid") == 10 + 1000


def test_after_the_witness_was_killed_results_say_why_nothing_is_counted(own_witness: Witness) -> None:
    runtime = PythonRuntime(POOL, "bare")
    runtime.witness = Witnessing.connect(own_witness.path, 8)
    try:
        runtime.start()
        assert execute(runtime, "1", "python", "native").isolation.witness == "kernel"
        os.kill(own_witness.pid, signal.SIGKILL)
        assert runtime.witness.accounts is not None
        wait_until_ended(runtime.witness.accounts)
        result = execute(runtime, "2", "python", "native")
    finally:
        runtime.close()
        runtime.witness.close()
    assert result.value == 2
    assert result.usage.kernel is None
    assert result.isolation.witness.startswith("not counted: the process that counts has ended")


def wait_until_ended(accounts: Accounts) -> None:
    deadline = time.monotonic() + _SOON_S
    while not accounts.ended:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_pool_that_closes_keeps_the_account_of_what_still_runs(
    own_witness: Witness, reader: tuple[subprocess.Popen[bytes], int]
) -> None:
    process, identity = reader
    accounts = Accounts.connect(own_witness.path, 4)
    account = accounts.open(identity)
    say(process, b"-")
    before = account.usage()
    accounts.close()
    with pytest.raises(NotCounted, match="are left"):
        Accounts.connect(own_witness.path, ACCOUNTS)
    say(process, b"345")
    assert account.usage().read_bytes - before.read_bytes == 3
    account.close()
    wait_until_registered(own_witness, 0)
    deadline = time.monotonic() + _SOON_S
    while own_witness.free_accounts < ACCOUNTS:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_pool_that_cannot_be_let_in_at_once_waits_at_the_door(
    own_witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Accounts.connect(own_witness.path, 2)
    account = held.open(1)
    refused = threading.Event()
    monkeypatch.setattr(own_witness, "_listener", Door(own_witness._listener, refused))
    later = Accounts.connect(own_witness.path, 2)
    assert refused.is_set()
    assert not held.ended
    for each in (later, account, held):
        each.close()


class Door:
    """A listening socket that once finds no descriptor left (EMFILE in accept(2)).

    Args:
        listener: The real one.
        refused: Set when it has.
    """

    def __init__(self, listener: socket.socket, refused: threading.Event) -> None:
        self._listener = listener
        self._refused = refused

    def accept(self) -> tuple[socket.socket, object]:
        if not self._refused.is_set():
            self._refused.set()
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listener.accept()

    def fileno(self) -> int:
        return self._listener.fileno()

    def close(self) -> None:
        self._listener.close()


def test_what_has_ended_is_registered_no_more_and_tells_nobody_elses_counts(witness: Witness) -> None:
    before = registered(witness)
    accounts = Accounts.connect(witness.path, 2)
    try:
        account = accounts.open(1 << 41)
        assert registered(witness) == before + 1
        assert account.usage_if_open() is not None
        account.close()
        assert account.usage_if_open() is None
        wait_until_registered(witness, before)
    finally:
        accounts.close()


def test_a_pool_that_is_killed_leaves_nothing_registered(witness: Witness) -> None:
    before = registered(witness), witness.free_accounts
    with subprocess.Popen(
        [sys.executable, "-c", _CLIENT, witness.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as pool:
        assert pool.stdout is not None
        assert pool.stdout.readline() == "held\n"
        assert registered(witness) == before[0] + 3
        pool.kill()
    wait_until_registered(witness, before[0])
    deadline = time.monotonic() + _SOON_S
    while witness.free_accounts < before[1]:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_one_more_execution_than_accounts_is_not_counted_and_says_so(witness: Witness) -> None:
    accounts = Accounts.connect(witness.path, 2)
    try:
        held = [accounts.open(1), accounts.open(2)]
        with pytest.raises(NotCounted, match="more executions"):
            accounts.open(3)
        for account in held:
            account.close()
            account.close()
    finally:
        accounts.close()


def test_one_pool_more_than_there_is_room_for_is_refused(witness: Witness) -> None:
    with pytest.raises(NotCounted, match=f"of {ACCOUNTS} accounts are left"):
        Accounts.connect(witness.path, ACCOUNTS + 1)


def test_a_child_without_a_group_of_its_own_is_not_counted(witness: Witness) -> None:
    accounts = Accounts.connect(witness.path, 2)
    try:
        with pytest.raises(NotCounted, match="no cgroup of its own"):
            accounts.open(None)
    finally:
        accounts.close()


def test_where_no_witness_listens_a_pool_says_so() -> None:
    with pytest.raises(NotCounted, match="no process counts on this node"):
        Accounts.connect("/nonexistent/witness.sock", 4)


def test_without_the_capabilities_one_line_says_what_is_missing_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = counting_programs()
    monkeypatch.setattr("runvisor.actors.witness.witness._CAPABILITIES", frozenset())
    witness = Witness()
    with pytest.raises(SpawnFailed, match="bpf map create: Operation not permitted") as refused:
        witness.start()
    assert "CAP_BPF" in refused.value.remedy
    assert "\n" not in str(refused.value)
    assert counting_programs() == before
