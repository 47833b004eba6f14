"""Observations that are called off before they begin: while a program is compiled, or others wait for that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.ebpf.compiler import Compiler
from runvisor.actors.ebpf.observe.observers import PROGRAMS, Observers
from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.actors.runtime import PoolSize
from runvisor.policies.observations import ObservationRequest, ObservedTable
from tests.actors.ebpf.observe.known import LONG_S, known_process

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.root,
    pytest.mark.skipif(not probe_ebpf().available, reason=probe_ebpf().detail),
]

FOR_EVER = """// raw_tracepoint: sys_enter
#define A(x) (x+x+x+x+x+x+x+x)
#define B(x) A(A(A(x)))
#define C(x) B(B(x))
struct value { u64 times; };
void on_event(struct event *e, struct value *v) { v->times = C(e->tid); }
"""


class Held(Compiler):
    """Says when a child has begun to read a text; holds our own texts until it may go on, or is called off."""

    def __init__(self) -> None:
        super().__init__(PoolSize(minimum=0, maximum=2))
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def instructions(
        self,
        main: str,
        body: str,
        timeout_s: float,
        on_started: Callable[[], None],
        functions: Sequence[str] = (),
        cancellation: Cancellation | None = None,
    ) -> dict[str, bytes]:
        if body == PROGRAMS["io"].body:
            self.begun.release()
            assert cancellation is not None
            with cancellation.waking(self.go_on.set):
                assert self.go_on.wait(LONG_S)
        return super().instructions(main, body, timeout_s, self.begun.release, functions, cancellation)


class Asked:
    """An observation in a thread of its own."""

    def __init__(self, observers: Observers, request: ObservationRequest) -> None:
        self.cancellation = Cancellation()
        self._tables: list[ObservedTable] = []
        self._thread = threading.Thread(target=self._run, args=(observers, request), daemon=True)
        self._thread.start()

    def table(self) -> ObservedTable:
        self._thread.join(LONG_S / 2)
        return self._tables[0]

    def _run(self, observers: Observers, request: ObservationRequest) -> None:
        self._tables.append(observers.observe(request, self.cancellation, lambda: None))


@pytest.fixture
def compiler() -> Iterator[Held]:
    compiler = Held()
    compiler.start()
    yield compiler
    compiler.close()


@pytest.fixture
def observers(compiler: Held) -> Iterator[Observers]:
    observers = Observers(compiler)
    yield observers
    observers.close()


@pytest.fixture
def idle() -> Iterator[int]:
    with known_process("sys.stdin.readline()") as process:
        yield process.pid


def test_the_compiler_of_a_program_is_killed(observers: Observers, compiler: Held, idle: int) -> None:
    asked = Asked(observers, ObservationRequest("program", idle, LONG_S, program=FOR_EVER))
    assert compiler.begun.acquire(timeout=LONG_S)
    asked.cancellation.cancel()
    table = asked.table()
    assert (table.what, table.rows, table.ended) == ("raw_tracepoint sys_enter", (), "stopped")
    assert [column.name for column in table.columns] == ["times"]
    assert observers.busy == 0


def test_of_two_that_wait_for_one_text_either_can_be_called_off(
    observers: Observers, compiler: Held, idle: int
) -> None:
    request = ObservationRequest("io", idle, 0.05)
    first = Asked(observers, request)
    assert compiler.begun.acquire(timeout=LONG_S)
    waiting, other = Asked(observers, request), Asked(observers, request)
    waiting.cancellation.cancel()
    assert waiting.table().ended == "stopped"
    first.cancellation.cancel()
    assert first.table().ended == "stopped"
    assert other.table().ended == "time", "the text is compiled for those who still want it"
