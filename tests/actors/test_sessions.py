"""Who may use a session, how many there may be, and when they end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.pool import PoolActor
from runvisor.actors.runtime import Cell, PoolSize, Watch
from runvisor.actors.sessions import SessionLimits, Sessions
from runvisor.policies import errors
from runvisor.policies.result import Isolation, Result
from runvisor.policies.values import Packed

CELL = Cell("1", Packed(b"\xc0"))
ISOLATION = Isolation("test")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Book:
    """A session without a sandbox: its cells do what the test says."""

    def __init__(self, run: Callable[[Watch], Result] | None = None) -> None:
        self.ended = ""
        self.closed = 0
        self.killed = threading.Event()
        self._run = run or (lambda watch: Result(ISOLATION, value=1))

    def run(self, cell: Cell, watch: Watch) -> Result:
        return self._run(watch)

    def kill(self) -> None:
        self.killed.set()

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(SessionLimits(total=3, per_principal=2, idle_s=60.0, max_idle_s=600.0), clock=clock)


def lost_reason(sessions: Sessions, principal: str, token: str) -> str:
    with pytest.raises(errors.SessionLost) as caught:
        sessions.run(principal, token, CELL, Watch())
    return caught.value.what


def test_a_token_is_long_and_never_the_same(sessions: Sessions) -> None:
    first, second = (sessions.open("ada", Book) for _ in range(2))
    assert first != second
    assert len(first) >= 40
    sessions.close_all()


def test_another_principal_can_neither_use_nor_interrupt_nor_close_it_nor_tell_that_it_is_there(
    sessions: Sessions,
) -> None:
    book = Book()
    token = sessions.open("ada", lambda: book)
    unknown = lost_reason(sessions, "eve", "no-such-token")
    assert lost_reason(sessions, "eve", token) == unknown
    for use in (sessions.interrupt, sessions.close):
        with pytest.raises(errors.SessionLost, match=unknown):
            use("eve", token)
    assert sessions.run("ada", token, CELL, Watch()).value == 1
    sessions.close("ada", token)
    assert lost_reason(sessions, "eve", token) == unknown
    assert "closed" in lost_reason(sessions, "ada", token)
    assert book.closed == 1


def test_one_cell_at_a_time_and_the_second_is_told_at_once(sessions: Sessions) -> None:
    token = ""

    def run_another(watch: Watch) -> Result:
        with pytest.raises(errors.SessionBusy):
            sessions.run("ada", token, CELL, Watch())
        return Result(ISOLATION, value="first")

    token = sessions.open("ada", lambda: Book(run_another))
    assert sessions.run("ada", token, CELL, Watch()).value == "first"
    sessions.close_all()


def test_an_interrupt_reaches_the_running_cell_and_says_when_there_is_none(sessions: Sessions) -> None:
    token = ""

    def interrupted(watch: Watch) -> Result:
        assert sessions.interrupt("ada", token) is True
        return Result(ISOLATION, value=watch.cancellation.cancelled)

    token = sessions.open("ada", lambda: Book(interrupted))
    assert sessions.interrupt("ada", token) is False
    assert sessions.run("ada", token, CELL, Watch()).value is True
    sessions.close_all()


def test_a_principal_has_a_share_and_the_pool_a_total(sessions: Sessions) -> None:
    tokens = [sessions.open("ada", Book) for _ in range(2)]
    with pytest.raises(errors.TooManySessions, match="ada has 2"):
        sessions.open("ada", Book)
    sessions.open("bob", Book)
    with pytest.raises(errors.TooManySessions, match="the pool has 3"):
        sessions.open("cy", Book)
    sessions.close("ada", tokens[0])
    sessions.open("cy", Book)
    sessions.close_all()


def test_a_session_that_could_not_be_opened_takes_no_place(sessions: Sessions) -> None:
    def fail() -> Book:
        raise errors.PoolExhausted("none came free")

    for _ in range(3):
        with pytest.raises(errors.PoolExhausted):
            sessions.open("ada", fail)
    assert not sessions.tokens()


def test_what_idles_too_long_ends_and_use_puts_it_off(sessions: Sessions, clock: Clock) -> None:
    used, unused = Book(), Book()
    first, second = sessions.open("ada", lambda: used), sessions.open("ada", lambda: unused)
    clock.now += 50
    sessions.run("ada", first, CELL, Watch())
    assert sessions.expire() == pytest.approx(10)
    clock.now += 10
    assert sessions.expire() == pytest.approx(50)
    assert (used.closed, unused.closed) == (0, 1)
    assert "expired" in lost_reason(sessions, "ada", second)
    clock.now += 50
    assert sessions.expire() is None
    assert used.closed == 1


def test_an_owner_may_ask_for_another_bound_within_the_pools(sessions: Sessions, clock: Clock) -> None:
    sessions.open("ada", Book, 5.0)
    assert sessions.expire() == pytest.approx(5)
    sessions.close_all()
    patient = Sessions(SessionLimits(max_idle_s=600.0), clock=clock)
    patient.open("ada", Book, 1e9)
    assert patient.expire() == pytest.approx(600)
    patient.close_all()


def test_a_session_that_runs_a_cell_is_not_among_the_idle(sessions: Sessions) -> None:
    seen: list[frozenset[str]] = []

    def look(watch: Watch) -> Result:
        seen.append(sessions.idle_tokens())
        return Result(ISOLATION)

    tokens = [sessions.open("ada", Book), sessions.open("ada", lambda: Book(look))]
    assert sessions.idle_tokens() == set(tokens)
    sessions.run("ada", tokens[1], Cell("1", Packed(b"")), Watch())
    assert seen == [{tokens[0]}]
    sessions.close("ada", tokens[0])
    assert sessions.idle_tokens() == {tokens[1]}
    sessions.close_all()


def test_a_running_cell_is_not_idle(sessions: Sessions, clock: Clock) -> None:
    def slow(watch: Watch) -> Result:
        clock.now += 1000
        assert sessions.expire() == pytest.approx(60)
        return Result(ISOLATION, value="done")

    book = Book(slow)
    token = sessions.open("ada", lambda: book)
    assert sessions.run("ada", token, CELL, Watch()).value == "done"
    assert book.closed == 0
    sessions.close_all()


def test_the_expiry_comes_by_itself() -> None:
    closed = threading.Event()

    class Ending(Book):
        def close(self) -> None:
            closed.set()

    sessions = Sessions(SessionLimits(idle_s=0.05))
    sessions.open("ada", Ending)
    assert closed.wait(20)
    sessions.close_all()


def test_a_session_that_ended_with_its_cell_says_why_to_the_next(sessions: Sessions) -> None:
    def die(watch: Watch) -> Result:
        book.ended = "TimeLimitExceeded: the task ran longer than 1 s"
        return Result(ISOLATION, error=errors.TimeLimitExceeded("late"))

    book = Book(die)
    token = sessions.open("ada", lambda: book)
    assert isinstance(sessions.run("ada", token, CELL, Watch()).error, errors.TimeLimitExceeded)
    assert book.closed == 1
    assert "longer than 1 s" in lost_reason(sessions, "ada", token)


def test_a_failure_of_ours_ends_the_session_and_a_bad_cell_does_not(sessions: Sessions) -> None:
    def refuse(watch: Watch) -> Result:
        raise errors.InvalidTask("empty")

    def fail(watch: Watch) -> Result:
        raise OSError("gone")

    bad, broken = Book(refuse), Book(fail)
    first, second = sessions.open("ada", lambda: bad), sessions.open("ada", lambda: broken)
    with pytest.raises(errors.InvalidTask):
        sessions.run("ada", first, CELL, Watch())
    with pytest.raises(OSError, match="gone"):
        sessions.run("ada", second, CELL, Watch())
    assert (bad.closed, broken.closed) == (0, 1)
    sessions.close_all()


@pytest.mark.parametrize("way", ["close", "close_all"])
def test_closing_in_the_middle_of_a_cell_kills_it(sessions: Sessions, way: str) -> None:
    running = threading.Event()

    def until_killed(watch: Watch) -> Result:
        running.set()
        assert book.killed.wait(20)
        return Result(ISOLATION, error=errors.GuestCrashed("died of SIGKILL"))

    book = Book(until_killed)
    token = sessions.open("ada", lambda: book)
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(sessions.run("ada", token, CELL, Watch())))
    thread.start()
    assert running.wait(20)
    if way == "close":
        sessions.close("ada", token)
    else:
        sessions.close_all()
    thread.join(20)
    assert isinstance(results[0].error, errors.Cancelled)
    assert book.closed == 1
    assert "closed" in lost_reason(sessions, "ada", token)


def test_a_closed_pool_opens_none(sessions: Sessions) -> None:
    sessions.open("ada", Book)
    sessions.close_all()
    sessions.close_all()
    with pytest.raises(errors.SessionLost):
        sessions.open("ada", Book)
    assert not any(thread.name == "session-expiry" for thread in threading.enumerate())


def test_half_of_a_pool_is_left_to_tasks() -> None:
    for maximum, total, share in ((16, 8, 6), (6, 3, 2), (1, 1, 1)):
        limits = SessionLimits.for_pool(PoolSize(minimum=1, maximum=maximum))
        assert (limits.total, limits.per_principal) == (total, share)


@pytest.mark.parametrize(
    ("limits", "where"),
    [
        ({"total": 0}, "total"),
        ({"per_principal": -1}, "per_principal"),
        ({"total": True}, "total"),
        ({"idle_s": 0}, "idle_s"),
        ({"max_idle_s": float("nan")}, "max_idle_s"),
        ({"lifetime_s": "long"}, "lifetime_s"),
        ({"idle_s": 10.0, "max_idle_s": 5.0}, "idle_s"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any], where: str) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        SessionLimits(**limits)
    assert caught.value.where == where


def test_nobody_is_promised_more_sessions_than_there_are() -> None:
    assert SessionLimits(total=2).per_principal == 2


def test_a_pool_keeps_no_more_sessions_than_it_has_instances(tmp_path: Path) -> None:
    pool = PoolActor("python", PoolSize(1, 4), bytes(32), str(tmp_path), sessions=SessionLimits(total=5))
    with pytest.raises(errors.ConfigError, match="do not fit into 4 instances"):
        pool.start()
