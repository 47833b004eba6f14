"""Who may observe what, as a pool decides it, and what it writes down of that."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.audit_log import AuditLog
from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.frames import Message
from runvisor.actors.channel.unix import UnixChannel, UnixServer
from runvisor.actors.process_birth import process_birth
from runvisor.actors.runtime import Load, Probe, Watch
from runvisor.actors.service import PoolService
from runvisor.policies.authority import Authority
from runvisor.policies.errors import CapabilityDenied, ConfigError, ProtocolError, RunvisorError, TrustViolation
from runvisor.policies.observations import Column, ObservationRequest, ObservedTable
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Isolation, Result
from runvisor.policies.running import Running
from runvisor.policies.task import Task
from runvisor.policies.tickets import ProcessTicket
from runvisor.policies.trust import Grant, Trust

KEY = bytes(range(32))
ASKED = ObservationRequest("files", os.getpid(), 30.0)


class Watcher:
    """A runtime that observes until it is called off, and runs nothing."""

    name = "ebpf"

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.asked: list[tuple[str, str]] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def probe(self) -> Probe:
        return Probe(self.name, True, "")

    def start(self) -> None:
        pass

    def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
        return Result(Isolation("none"))

    def observe(self, request: ObservationRequest, watch: Watch, principal: str = "", birth: str = "") -> ObservedTable:
        self.asked.append((principal, birth))
        watch.started()
        self.meanwhile()
        stopped = threading.Event()
        with watch.cancellation.waking(stopped.set):
            if not watch.cancellation.cancelled:
                stopped.wait(request.duration_s)
        self.ended.set()
        what = request.what if request.program is None else "uprobe /lib/libc.so.6:malloc"
        return ObservedTable(what, (Column("path", "text"),), (("/etc",),), request.pid, 0.5, "stopped")

    def load(self) -> Load:
        return Load()

    def close(self) -> None:
        pass


class Blind(Watcher):
    """A runtime that observes nothing."""

    name = "python"
    observe = None  # type: ignore[assignment]


class Answers:
    """Keeps what is said; a client that calls off as soon as it hears of the start."""

    def __init__(self) -> None:
        self.said: list[Message] = []

    def send(self, message: Message) -> None:
        self.said.append(message)

    def offer(self, make: Callable[[], Message]) -> bool:
        return False

    def cancel_when_gone(self, cancellation: Cancellation) -> AbstractContextManager[None]:
        cancellation.cancel()
        return nullcontext()


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditLog]:
    audit = AuditLog(tmp_path / "audit.jsonl")
    yield audit
    audit.close()


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def service(audit: AuditLog, watcher: Watcher) -> Iterator[PoolService]:
    service = PoolService(watcher, KEY, audit)
    yield service
    service.close()


def authority(trust: Trust = Trust.TRUSTED, permissions: Permissions | None = None) -> bytes:
    return Authority("ada", trust, permissions, time.time() + 600).seal(KEY)


def ask(service: PoolService, **changes: Any) -> Message:
    answers = Answers()
    message = {"op": "observe", "authority": authority(), "observation": ASKED.to_wire(), "execution": "one"}
    service.handle({**message, **changes}, answers)
    return answers.said[-1]


def error_of(answer: Message) -> RunvisorError:
    return RunvisorError.from_wire(answer["error"])


def test_who_looks_on_sees_an_observation_until_it_ends(service: PoolService, watcher: Watcher) -> None:
    seen: list[Running] = []
    watcher.meanwhile = lambda: seen.extend(service.running())
    ask(service)
    (one,) = seen
    assert (one.principal, one.runtime, one.variant, one.trust) == ("ada", "ebpf", "observe", "trusted")
    assert (one.label, one.state) == (f"files of {ASKED.pid}", "running")
    assert service.running() == []


def records(audit: AuditLog) -> list[dict[str, Any]]:
    return [json.loads(line) for line in audit.path.read_text().splitlines()]


def test_it_is_written_down_before_it_begins_and_when_it_has_ended(service: PoolService, audit: AuditLog) -> None:
    answer = ask(service)
    assert ObservedTable.from_wire(answer["table"]).to_dicts() == [{"path": "/etc"}]
    intended, done = records(audit)
    assert (intended["action"], intended["principal"]) == ("intend to observe", "ada")
    assert intended["details"] == {**ASKED.to_wire(), "target": "process"}
    assert (done["action"], done["details"]["rows"], done["details"]["ended"]) == ("observe", 1, "stopped")


def test_a_ticket_is_for_one_process_whoever_has_its_number_later(service: PoolService, watcher: Watcher) -> None:
    birth = process_birth(ASKED.pid)
    for sealed in (birth, "another"):
        ticket = ProcessTicket("ada", ASKED.pid, sealed, time.time() + 60).seal(KEY)
        answer = ask(service, authority=authority(Trust.VERIFIED), ticket=ticket)
    assert isinstance(error_of(answer), TrustViolation)
    assert watcher.asked == [("ada", birth)]


@pytest.mark.parametrize("trust", [Trust.UNTRUSTED, Trust.VERIFIED])
def test_a_process_by_its_number_takes_trust(service: PoolService, audit: AuditLog, trust: Trust) -> None:
    error = error_of(ask(service, authority=authority(trust)))
    assert isinstance(error, TrustViolation)
    assert "takes trusted" in str(error)
    (record,) = records(audit)
    assert (record["kind"], record["principal"]) == ("denial", "ada")


PROGRAM = ObservationRequest("program", os.getpid(), 30.0, program="its text")


def test_a_program_is_written_down_by_its_digest(service: PoolService, audit: AuditLog) -> None:
    ask(service, observation=PROGRAM.to_wire())
    for record in records(audit):
        assert record["details"]["program_sha256"] == hashlib.sha256(b"its text").hexdigest()
        assert "its text" not in json.dumps(record)


def test_a_program_is_written_down_with_its_place(service: PoolService, audit: AuditLog) -> None:
    asked = ObservationRequest("program", os.getpid(), 30.0, program="// uprobe: libc:malloc\nits text")
    ask(service, observation=asked.to_wire())
    intended, done = records(audit)
    assert intended["details"]["event"] == "uprobe libc:malloc"
    assert done["details"]["event"] == "uprobe /lib/libc.so.6:malloc", "what the runtime says that it was"


@pytest.mark.parametrize("trust", [Trust.UNTRUSTED, Trust.VERIFIED])
def test_a_program_of_ones_own_takes_trust_also_for_an_own_execution(
    service: PoolService, audit: AuditLog, trust: Trust
) -> None:
    birth = process_birth(os.getpid())
    ticket = ProcessTicket("ada", os.getpid(), birth, time.time() + 60).seal(KEY)
    assert "table" in ask(service, authority=authority(Trust.VERIFIED), ticket=ticket)
    for given in (None, ticket):
        error = error_of(ask(service, observation=PROGRAM.to_wire(), authority=authority(trust), ticket=given))
        assert isinstance(error, TrustViolation)
        assert "by a program of its own takes trusted" in str(error)
    assert [record["kind"] for record in records(audit)][-2:] == ["denial", "denial"]


def test_a_principals_own_ceiling_bounds_the_time(service: PoolService) -> None:
    error = error_of(ask(service, authority=authority(permissions=Permissions(timeout_s=10.0))))
    assert isinstance(error, CapabilityDenied)
    assert "ask for at most 10 s" in str(error)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"authority": b"forged"}, TrustViolation),
        ({"authority": None}, ProtocolError),
        ({"observation": None}, ProtocolError),
        ({"observation": {**ASKED.to_wire(), "more": 1}}, ProtocolError),
        ({"observation": {**ASKED.to_wire(), "program": "text"}}, ConfigError),
        ({"observation": {**ASKED.to_wire(), "what": "program"}}, ConfigError),
        ({"observation": {**ASKED.to_wire(), "what": "program", "program": 5}}, ConfigError),
        ({"observation": {**ASKED.to_wire(), "pid": "1"}}, ConfigError),
        ({"observation": {**ASKED.to_wire(), "pid": True}}, ConfigError),
        ({"observation": {**ASKED.to_wire(), "duration_s": float("nan")}}, ConfigError),
        ({"observation": {**ASKED.to_wire(), "what": ["files"]}}, ConfigError),
        ({"execution": 5}, ProtocolError),
    ],
)
def test_what_is_malformed_is_refused(service: PoolService, changes: dict[str, Any], kind: type[Exception]) -> None:
    assert isinstance(error_of(ask(service, **changes)), kind)


def test_a_pool_that_observes_nothing_says_so(audit: AuditLog) -> None:
    service = PoolService(Blind(), KEY, audit)
    try:
        assert "python observes nothing" in str(error_of(ask(service)))
    finally:
        service.close()


def test_a_client_that_goes_away_ends_it(service: PoolService, watcher: Watcher) -> None:
    server = UnixServer(service.handle, "nonce")
    channel = UnixChannel(str(server.path), "nonce")

    class Gone(Exception):
        pass

    def leave(event: Message) -> None:
        assert event == {"op": "started"}
        raise Gone

    try:
        with pytest.raises(Gone):
            channel.request({"op": "observe", "authority": authority(), "observation": ASKED.to_wire()}, leave)
        assert watcher.ended.wait(10.0)
    finally:
        channel.close()
        server.close()
