"""Profiles beside the default one: started at first use, few at once, ended when idle."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.python.profile_pools import ProfilePools
from runvisor.actors.python.profiles import PythonProfile
from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import Cell, Load, PoolSize, Watch
from runvisor.policies.errors import (
    Cancelled,
    ConfigError,
    PoolExhausted,
    RunvisorError,
    SpawnFailed,
    UnknownProfile,
    WorkerCrashed,
)
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Packed, pack


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Jail:
    """A runtime that runs nothing, and says what became of it."""

    def __init__(self, name: str, failure: RunvisorError | None) -> None:
        self.name = name
        self.starts = 0
        self.alive = True
        self.closed = threading.Event()
        self._failure = failure

    def start(self) -> None:
        self.starts += 1
        if self._failure is not None:
            raise self._failure

    def load(self) -> Load:
        return Load(idle=1)

    def close(self) -> None:
        self.closed.set()


class Yard:
    """Pools of such runtimes."""

    def __init__(self, maximum: int = 2, **options: Any) -> None:
        self.made: list[Jail] = []
        self.failure: RunvisorError | None = None
        self.clock = Clock()
        options = {"clock": self.clock, **options}
        self.pools = ProfilePools(self._make, maximum, PoolSize(wait_s=0.05), **options)  # type: ignore[arg-type]

    def _make(self, name: str) -> Jail:
        self.made.append(Jail(name, self.failure))
        return self.made[-1]

    def use(self, name: str) -> None:
        with self.pools.use(name):
            pass


@pytest.fixture
def yard() -> Iterator[Yard]:
    yard = Yard()
    yield yard
    yard.pools.close()
    yard.pools.close()
    assert all(jail.closed.is_set() for jail in yard.made)


def test_a_profile_starts_once_for_all_its_tasks(yard: Yard) -> None:
    with yard.pools.use("a") as first, yard.pools.use("a") as second:
        assert first is second
    yard.use("a")
    assert [jail.starts for jail in yard.made] == [1]
    assert yard.pools.load() == Load(idle=1)


def test_one_that_has_lost_its_zygote_is_ended_and_made_anew(yard: Yard) -> None:
    with yard.pools.use("a"):
        yard.made[0].alive = False
        yard.use("a")
        assert not yard.made[0].closed.is_set()  # its first user still has it
    yard.made[1].alive = False
    yard.use("a")
    assert [jail.closed.is_set() for jail in yard.made] == [True, True, False]


def test_the_one_unused_longest_makes_room(yard: Yard) -> None:
    for name in ("a", "b", "a", "c"):
        yard.use(name)
    assert yard.pools.names() == ("a", "c")
    assert [jail.name for jail in yard.made if jail.closed.is_set()] == ["b"]


def test_one_in_use_is_never_ended_and_who_finds_no_room_is_told(yard: Yard) -> None:
    with yard.pools.use("a"), yard.pools.use("b"):
        with pytest.raises(PoolExhausted, match="a, b in use"):
            yard.use("c")
        assert not any(jail.closed.is_set() for jail in yard.made)
    yard.use("c")


def test_who_waits_for_room_can_be_called_off(yard: Yard) -> None:
    with Cancellation() as cancellation, yard.pools.use("a"), yard.pools.use("b"):
        cancellation.cancel()
        with pytest.raises(Cancelled), yard.pools.use("c", cancellation):
            pass


def test_what_cannot_be_started_is_the_tasks_error_and_takes_no_room(yard: Yard) -> None:
    yard.failure = SpawnFailed("no such package")
    with pytest.raises(ConfigError, match="'a' cannot be started: no such package"):
        yard.use("a")
    assert yard.pools.names() == ()
    yard.failure = None
    yard.use("a")


def test_one_that_failed_on_our_side_is_made_anew(yard: Yard) -> None:
    with pytest.raises(WorkerCrashed), yard.pools.use("a"):
        raise WorkerCrashed("its zygote died")
    assert yard.made[0].closed.is_set()
    yard.use("a")
    assert len(yard.made) == 2


def test_two_tasks_that_come_at_once_start_it_once() -> None:
    slow = threading.Event()

    class Slow(Jail):
        def start(self) -> None:
            super().start()
            assert slow.wait(10)

    made: list[Slow] = []

    def make(name: str) -> Slow:
        made.append(Slow(name, None))
        return made[-1]

    pools = ProfilePools(make, 2, PoolSize(wait_s=20.0))  # type: ignore[arg-type]

    def use() -> None:
        with pools.use("a"):
            pass

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: pools.load().waiting == 3)
    slow.set()
    for thread in threads:
        thread.join(10)
    assert [jail.starts for jail in made] == [1]
    pools.close()


def test_an_idle_one_ends_by_itself_and_a_used_one_does_not() -> None:
    yard = Yard(idle_s=0.05, clock=time.monotonic)
    with yard.pools.use("a"):
        yard.use("b")
        assert yard.made[1].closed.wait(10)
        assert not yard.made[0].closed.is_set()
    assert yard.made[0].closed.wait(10)
    until(lambda: not any(thread.name == "profile-expiry" for thread in threading.enumerate()))
    yard.pools.close()
    with pytest.raises(SpawnFailed, match="closed"):
        yard.use("a")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PythonRuntime]:
    folder: Path = tmp_path_factory.mktemp("environments") / "venv"
    site = folder / f"lib/python{'.'.join(map(str, sys.version_info[:2]))}/site-packages"
    site.mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    (site / "greeting.py").write_text("def hello():\n    return 'hello'\n")
    others = (PythonProfile("own", ("greeting",), folder), PythonProfile("broken", ("no_such_package",)))
    runtime = PythonRuntime(PoolSize(minimum=1, maximum=4), "bare", others, max_profiles=2)
    runtime.start()
    yield runtime
    runtime.close()


@pytest.mark.root
@pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail)
class TestForReal:
    def run(self, runtime: PythonRuntime, code: str, profile: str) -> Result:
        grant = Grant("tester", Trust.UNTRUSTED, Permissions())
        return runtime.execute(Task(code, "python", profile=profile), "native", grant, Watch())

    def test_each_task_finds_the_packages_of_its_profile(self, runtime: PythonRuntime) -> None:
        loaded = "import sys\n'greeting' in sys.modules"
        assert self.run(runtime, loaded, "").unwrap() is False
        assert self.run(runtime, loaded, "bare").unwrap() is False
        first = self.run(runtime, loaded, "own")
        second = self.run(runtime, "import greeting\ngreeting.hello()", "own")
        assert (first.unwrap(), first.usage.start_kind) == (True, "cold")
        assert (second.unwrap(), second.usage.start_kind) == ("hello", "warm")
        assert first.usage.queue_s > second.usage.queue_s

    def test_an_unknown_name_lists_the_known(self, runtime: PythonRuntime) -> None:
        for ask in (lambda: self.run(runtime, "1", "sience"), lambda: self.session(runtime, "sience")):
            with pytest.raises(UnknownProfile, match="choose one of bare, broken, own, science"):
                ask()

    def test_a_profile_whose_packages_are_missing_harms_only_who_asks_for_it(self, runtime: PythonRuntime) -> None:
        with pytest.raises(ConfigError, match="no_such_package"):
            self.run(runtime, "1", "broken")
        assert self.run(runtime, "1", "").unwrap() == 1

    def test_a_missing_package_names_the_profile_to_ask_for(self, runtime: PythonRuntime) -> None:
        error = self.run(runtime, "import greeting", "").error
        assert error is not None
        assert "profile='own'" in error.remedy

    def test_a_session_keeps_its_profile_and_gives_it_back(self, runtime: PythonRuntime) -> None:
        with ExitStack() as stack:
            session = self.session(runtime, "own")
            stack.callback(session.close)
            assert session.run(Cell("import greeting", Packed(pack(None))), Watch()).ok
            assert session.run(Cell("greeting.hello()", Packed(pack(None))), Watch()).value == "hello"
            assert runtime._others._kept["own"].users == 1
        session.close()
        assert runtime._others._kept["own"].users == 0

    def session(self, runtime: PythonRuntime, profile: str) -> Any:
        grant = Grant("tester", Trust.UNTRUSTED, Permissions())
        return runtime.open_session(Task("-", "python", profile=profile), "native", grant)
