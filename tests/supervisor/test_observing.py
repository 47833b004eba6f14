"""Observing through the client: processes, sessions of one's own, and nobody else's."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.ebpf.observe.names import system_call_number
from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.policies.errors import CapabilityDenied, ConfigError, GuestSyntaxError, SessionLost, TrustViolation
from runvisor.policies.observations import ObservedTable
from runvisor.policies.trust import Trust
from runvisor.supervisor.client import Supervisor
from tests.actors.ebpf.observe.known import executors, go, known_process, row_of, wait_until

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.root,
    pytest.mark.skipif(not probe_ebpf().available, reason=probe_ebpf().detail),
]


def attached(supervisor: Supervisor, principal: str, trust: Trust) -> Supervisor:
    """Return a client of another principal; the supervisor is the test session's."""
    del supervisor
    return Supervisor.start(principal=principal, trust=trust)


@pytest.fixture
def verified(supervisor: Supervisor) -> Iterator[Supervisor]:
    with attached(supervisor, "vera", Trust.VERIFIED) as client:
        yield client


def test_a_block_of_code_is_observed_by_the_process_itself(supervisor: Supervisor) -> None:
    with supervisor.observing("syscalls", pid=os.getpid(), follow=False) as observation:
        for _ in range(23):
            os.getpgid(0)
    table = observation.result()
    assert row_of(table, syscall="getpgid")["calls"] == 23
    assert table.ended == "stopped"


def test_code_is_observed_from_its_first_step(verified: Supervisor) -> None:
    code = "import os\nfor _ in range(int(inputs)): os.getppid()\ninputs * 2"
    result, table = verified.observe_run("syscalls", code, "python", inputs=31)
    assert result.value == 62
    assert row_of(table, syscall="getppid")["calls"] == 31


def test_javascript_is_observed_too(verified: Supervisor) -> None:
    result, table = verified.observe_run("syscalls", "let n = 0; for (let i = 0; i < 1e5; i++) n += i; n", "javascript")
    assert result.value == 4999950000
    assert len(table) > 0


def test_files_that_a_sandbox_opens_are_seen_as_it_names_them(verified: Supervisor) -> None:
    code = "open('/tmp/own', 'w').write('x')\ntry: open('/etc/shadow')\nexcept OSError: pass"
    _, table = verified.observe_run("files", code, "python")
    assert str(row_of(table, path="/tmp/own")["how"]).startswith("write create")
    assert row_of(table, path="/etc/shadow")["result"] != "ok"


def test_two_observations_of_a_session_see_two_cells(verified: Supervisor) -> None:
    with verified.session("python") as session:
        counts = []
        for count in (3, 5):
            with verified.observing("syscalls", session=session) as observation:
                session.run(f"import os\nfor _ in range({count}): os.getppid()")
            counts.append(row_of(observation.result(), syscall="getppid")["calls"])
    assert counts == [3, 5]


def test_less_than_trusted_sees_no_process_by_its_number(verified: Supervisor, supervisor: Supervisor) -> None:
    with pytest.raises(TrustViolation, match="by its number takes trusted"):
        verified.observe("syscalls", pid=os.getpid(), duration_s=0.1)
    with verified.session("python") as session:
        pid, ticket = session.process()
        del ticket
        with pytest.raises(TrustViolation):
            verified.observe("syscalls", pid=pid, duration_s=0.1)
        assert isinstance(supervisor.observe("syscalls", pid=pid, duration_s=0.1), ObservedTable)


def test_an_untrusted_ceiling_observes_nothing(supervisor: Supervisor) -> None:
    with attached(supervisor, "udo", Trust.UNTRUSTED) as client, client.session("python") as session:
        observation = client.observing("syscalls", session=session, duration_s=0.1)
        with pytest.raises(TrustViolation, match="its own executions takes verified"):
            observation.result()


def test_another_principals_ticket_is_worth_nothing(verified: Supervisor, supervisor: Supervisor) -> None:
    with attached(supervisor, "viktor", Trust.VERIFIED) as other, verified.session("python") as session:
        observation = other.observing("syscalls", session=session, duration_s=0.1)
        with pytest.raises(TrustViolation, match="is not for process"):
            observation.result()


def test_the_ticket_of_a_session_that_has_ended_is_worth_nothing(verified: Supervisor) -> None:
    with verified.session("python") as session:
        kept = session.process()
    assert wait_until(lambda: not Path(f"/proc/{kept[0]}").exists())

    class Ended:
        def process(self) -> tuple[int, bytes]:
            return kept

    with pytest.raises(TrustViolation, match="has ended"):
        verified.observing("syscalls", session=Ended(), duration_s=0.1).result()  # type: ignore[arg-type]


def test_a_session_whose_process_has_ended_gets_no_ticket(verified: Supervisor) -> None:
    with verified.session("python") as session:
        pid, _ = session.process()
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: not Path(f"/proc/{pid}").exists())
        with pytest.raises(SessionLost, match="has ended"):
            session.process()


COUNT = f"""// raw_tracepoint: sys_enter
struct value {{ u64 times; }};
void on_event(struct event *e, struct value *v) {{ if (e->args[1] == {system_call_number("getpgid")}) v->times++; }}
"""


def test_a_program_of_ones_own_makes_the_table(supervisor: Supervisor) -> None:
    with supervisor.observing(program=COUNT, pid=os.getpid(), follow=False) as observation:
        for _ in range(23):
            os.getpgid(0)
    assert observation.result().to_dicts() == [{"times": 23}]


def test_less_than_trusted_observes_by_no_program_of_its_own(verified: Supervisor, supervisor: Supervisor) -> None:
    with pytest.raises(TrustViolation, match="by a program of its own takes trusted"):
        verified.observe(program=COUNT, pid=os.getpid(), duration_s=0.1)
    with verified.session("python") as session:
        observation = verified.observing(program=COUNT, session=session, duration_s=0.1)
        with pytest.raises(TrustViolation, match="by a program of its own takes trusted"):
            observation.result()
    with supervisor.session("python") as session:
        with supervisor.observing(program=COUNT, session=session) as observation:
            session.run("import os\nfor _ in range(12): os.getpgid(0)")
        assert observation.result().to_dicts() == [{"times": 12}]


def test_what_is_wrong_with_a_program_is_told_by_its_kind(supervisor: Supervisor) -> None:
    with pytest.raises(GuestSyntaxError, match="does not declare struct value"):
        supervisor.observing(program="// raw_tracepoint: sys_enter\n" + COUNT.splitlines()[-1], pid=os.getpid())
    with pytest.raises(ConfigError, match="sys_enter"):
        supervisor.observe(program=COUNT.replace("sys_enter", "sys_entre"), pid=os.getpid(), duration_s=0.1)
    with pytest.raises(CapabilityDenied, match="helper"):
        supervisor.observe(program=COUNT.replace("v->times++", "((int (*)(u32))109)(9)"), pid=os.getpid())
    with pytest.raises(ConfigError, match="either what is built in or by a program"):
        supervisor.observing("io", program=COUNT, pid=os.getpid())


def test_one_thing_at_a_time_is_observed(supervisor: Supervisor) -> None:
    with pytest.raises(ConfigError, match="either a process or a session"):
        supervisor.observing("syscalls")


def test_a_coroutine_that_is_cancelled_detaches_everything(supervisor: Supervisor) -> None:
    pool = next(pool["active"] for pool in supervisor.describe()["pools"] if pool["runtime"] == "ebpf")["pid"]

    async def leave(pid: int) -> None:
        task = asyncio.create_task(supervisor.aobserve("syscalls", pid=pid, duration_s=60.0))
        while not await asyncio.to_thread(executors, pool):
            assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with known_process("sys.stdin.readline()") as process:
        asyncio.run(leave(process.pid))
        go(process)
    assert wait_until(lambda: not executors(pool))
