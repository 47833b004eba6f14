"""A session in a real child: what it keeps, what ends it, and that it is as jailed as any."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.jail.session import JailedSession
from runvisor.actors.runtime import Cell, SessionRuntime, Watch
from runvisor.policies import errors
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Packed, pack
from tests.actors.executing import Heard
from tests.standing import needs_memory_cgroup

pytestmark = pytest.mark.root


@contextmanager
def opened(partner: JailedRuntime, **limits: Any) -> Iterator[JailedSession]:
    grant = Grant("tester", Trust.UNTRUSTED, Permissions(**limits))
    session = partner.open_session(Task("-", "python", label="book"), "native", grant)
    try:
        yield session
    finally:
        session.close()


def cell(
    session: JailedSession, code: str, inputs: Any = None, watch: Watch | None = None, timeout_s: float | None = None
) -> Result:
    return session.run(Cell(code, Packed(pack(inputs)), "", timeout_s), watch or Watch())


def test_a_jailed_runtime_has_sessions(partner: JailedRuntime) -> None:
    assert isinstance(partner, SessionRuntime)


def test_state_survives_from_cell_to_cell_and_not_into_another_session(partner: JailedRuntime) -> None:
    with opened(partner) as session, opened(partner) as other:
        assert cell(session, "secret = inputs", 41).ok
        assert cell(session, "value = secret + 1").value == 42
        assert isinstance(cell(other, "value = secret").error, errors.GuestException)


def test_a_failing_cell_leaves_the_session_as_it_is(partner: JailedRuntime) -> None:
    with opened(partner) as session:
        cell(session, "n = 1")
        assert isinstance(cell(session, "n = 2; 1 / 0").error, errors.GuestException)
        assert cell(session, "value = n").value == 2
        assert session.ended == ""


def test_each_cell_has_its_own_output_and_usage(partner: JailedRuntime) -> None:
    with opened(partner) as session:
        first = cell(session, "print('one'); sum(range(2_000_000))")
        second = cell(session, "print('two')")
        assert (first.stdout, second.stdout) == ("one\n", "two\n")
        assert first.usage.cpu_s is not None
        assert second.usage.cpu_s is not None
        assert second.usage.cpu_s < first.usage.cpu_s


def test_an_interrupt_ends_the_cell_and_the_session_lives_on(partner: JailedRuntime) -> None:
    with opened(partner, timeout_s=60.0) as session:
        cell(session, "n = 1")
        heard = Heard(cancel_at="ready")
        result = cell(session, "n = 2\nprint('ready')\nwhile True: pass", watch=heard.watch)
        assert isinstance(result.error, errors.GuestInterrupted)
        assert cell(session, "value = n").value == 2


def test_an_interrupt_before_the_guest_reads_its_cell_is_not_lost(partner: JailedRuntime) -> None:
    with opened(partner, timeout_s=60.0) as session:
        watch = Watch()
        watch.cancellation.cancel()
        assert isinstance(cell(session, "while True: pass", watch=watch).error, errors.GuestInterrupted)
        assert cell(session, "value = 1").value == 1


def test_a_cell_that_ignores_interrupts_ends_at_its_deadline_with_the_session(partner: JailedRuntime) -> None:
    with opened(partner) as session:
        deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('ready')\nwhile True: pass"
        result = cell(session, deaf, watch=Heard(cancel_at="ready").watch, timeout_s=1.0)
        assert isinstance(result.error, errors.TimeLimitExceeded)
        assert session.ended


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("while True: pass", errors.TimeLimitExceeded),
        ("while True: os.write(1, bytes(5000))", errors.OutputLimitExceeded),
        # The partner does not tell that error apart from others, as Python's own guest does.
        pytest.param("hog = bytearray(400 << 20)", errors.MemoryLimitExceeded, marks=needs_memory_cgroup),
        ("os._exit(3)", errors.GuestException),
        ("os.kill(1, 11)\nimport ctypes; ctypes.string_at(0)", errors.GuestCrashed),
        ("channel.close()\nwhile True: pass", errors.GuestCrashed),
        ("channel._socket.sendall(b'\\xff' * 8)", errors.OutputLimitExceeded),
    ],
    ids=["time", "output", "memory", "exit", "crash", "closed channel", "noise"],
)
def test_what_kills_a_cell_ends_the_session_and_says_so(
    partner: JailedRuntime, code: str, kind: type[errors.RunvisorError]
) -> None:
    with opened(partner, memory_bytes=64 * MiB, output_bytes=100_000) as session:
        result = cell(session, code, timeout_s=2.0)
        assert isinstance(result.error, kind)
        assert result.error.details["session"] == "ended"
        assert "session has ended" in str(result.error)
        assert session.ended


def test_a_reply_out_of_turn_cannot_answer_the_next_cell(partner: JailedRuntime) -> None:
    with opened(partner) as session:
        forged = (
            "from runvisor.policies.values import pack\n"
            "from runvisor.actors.channel.frames import encode\n"
            "channel._socket.sendall(2 * encode({'op': 'value', 'value': pack('forged')}))"
        )
        assert cell(session, forged).value == "forged"  # its own cell is its own to answer
        result = cell(session, "value = 'honest'")
        assert result.value is None
        assert isinstance(result.error, errors.GuestCrashed)
        assert session.ended


def test_the_cpu_time_of_all_cells_together_is_bounded(partner: JailedRuntime) -> None:
    with opened(partner, cpu_s=1.0, timeout_s=60.0) as session:
        result = cell(session, "value = 1")
        while result.ok:
            result = cell(session, "for _ in range(3_000_000): pass")
        assert isinstance(result.error, errors.TimeLimitExceeded)
        assert "CPU" in str(result.error)


def test_a_cell_may_bound_its_time_below_the_grant_but_not_above(partner: JailedRuntime) -> None:
    with opened(partner, timeout_s=0.5) as session:
        result = cell(session, "while True: pass", timeout_s=50.0)
        assert isinstance(result.error, errors.TimeLimitExceeded)
        assert result.usage.wall_s < 20


def test_an_empty_cell_is_refused_and_the_session_lives(partner: JailedRuntime) -> None:
    with opened(partner) as session:
        with pytest.raises(errors.InvalidTask):
            cell(session, " ")
        assert cell(session, "value = 1").value == 1


def test_it_is_jailed_like_a_fresh_run(partner: JailedRuntime) -> None:
    look = "value = [os.getpid(), sorted(os.listdir('/proc/self/fd')), open('/proc/self/status').read()]"
    with opened(partner) as session:
        in_session = cell(session, look)
    permissions = Permissions()
    fresh = partner.execute(Task(look, "python"), "native", Grant("tester", Trust.UNTRUSTED, permissions), Watch())
    assert in_session.isolation == fresh.isolation
    assert in_session.value[0] == 1
    assert in_session.value[1] == fresh.value[1]
    for field in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp:"):
        lines = [[line for line in value[2].splitlines() if field in line] for value in (in_session.value, fresh.value)]
        assert lines[0] == lines[1] != []


def test_closing_gives_the_instance_back_and_kill_ends_a_running_cell(partner: JailedRuntime) -> None:
    with opened(partner, timeout_s=60.0) as session:
        assert partner.load().busy >= 1
        heard = Heard()
        results: list[Result] = []
        code = "print('ready')\nwhile True: pass"
        thread = threading.Thread(target=lambda: results.append(cell(session, code, watch=heard.watch)))
        thread.start()
        assert heard.printed.wait(20)
        session.kill()
        thread.join(20)
        assert isinstance(results[0].error, errors.GuestCrashed)
    session.close()
