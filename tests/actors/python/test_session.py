"""Sessions: notebook semantics, driven frame by frame in a real sealed child."""

from __future__ import annotations

import select
from collections.abc import Callable

import pytest

from runvisor.actors.jail.probe import probe_jail
from tests.actors.python.driving import Answer, Session

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
Task = Callable[..., Answer]


def test_names_imports_and_classes_stay_from_cell_to_cell(session: Session) -> None:
    assert session.run("import math\nx = 20\nclass A: pass").value is None
    assert session.run("x += 1\nmath.floor(x * 2.0)").value == 42
    assert session.run("import pickle\npickle.loads(pickle.dumps(A())).__class__ is A").value is True


def test_each_cell_has_inputs_of_its_own(session: Session) -> None:
    assert session.run("inputs['n'] + 1", {"n": 1}).value == 2
    assert session.run("inputs").value is None


def test_underscore_is_the_last_value(session: Session) -> None:
    session.run("40")
    session.run("x = 1")
    assert session.run("_ + 2").value == 42
    assert session.run("_").value == 42


def test_underscore_stays_what_the_cell_made_of_it(session: Session) -> None:
    session.run("40")
    session.run("_ = str")
    session.run("41")
    assert session.run("_(5)").value == "5"


def test_an_error_ends_the_cell_and_not_the_session(session: Session) -> None:
    session.run("x = 1")
    assert session.run("x = 2\n1 / 0").error == "GuestException"
    assert session.run("def f(:").error == "GuestSyntaxError"
    assert session.run("x").value == 2


@pytest.mark.parametrize("leave", ["raise SystemExit", "import sys\nsys.exit(0)", "exit()", "quit()"])
def test_leaving_ends_the_cell_and_not_the_session(session: Session, leave: str) -> None:
    assert session.run(f"x = 1\n{leave}\nx = 2").value is None
    assert session.run("x").value == 1


def test_leaving_with_a_status_is_an_error(session: Session) -> None:
    answer = session.run("raise SystemExit('no data')")
    assert (answer.error, answer.what) == ("GuestException", "SystemExit: no data")


def test_main_is_not_called_as_a_task_calls_it(session: Session) -> None:
    assert session.run("def main(inputs):\n    print('called')\n    return 1").value is None
    assert session.run("2").value == 2
    assert session.run("main(None)").stdout == "called\n"


def test_an_object_without_a_plain_form_is_shown_as_text(session: Session) -> None:
    answer = session.run("object")
    assert answer.value is None
    assert answer.artifacts == {"result.txt": ("text/plain", b"<class 'object'>")}
    assert session.run("_ is object").value is True


def test_what_a_cell_shows_is_its_own(session: Session) -> None:
    first = session.run("import matplotlib.pyplot as plt\nplt.plot([1])")
    assert sorted(first.artifacts) == ["figure-1.png", "result.txt"]
    assert session.run("1").artifacts == {}
    assert list(session.run("plt.plot([1]); None").artifacts) == ["figure-1.png"]


def test_await_stands_at_the_top_level_and_background_tasks_live_on(session: Session) -> None:
    start = (
        "import asyncio\nseen = []\nasync def tick():\n    while True:\n        seen.append(1); await asyncio.sleep(0)"
    )
    assert session.run(start + "\ntask = asyncio.create_task(tick())\nawait asyncio.sleep(0)").value is None
    before = session.run("len(seen)").value
    assert session.run("for _ in range(10): await asyncio.sleep(0)\nlen(seen)").value > before
    assert session.run("[x async for x in __import__('asyncio').as_completed([])]").error == "GuestException"
    assert session.run("async def f(): return 7\nawait f()").value == 7
    assert session.run("asyncio.run(f())").value == 7


def test_a_task_may_await_at_its_top_level(task: Task) -> None:
    assert task("import asyncio\nx = await asyncio.sleep(0, 5)\nx + 1").value == 6
    assert task("import asyncio\nawait asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))").value == [1, 2]
    assert task("async def main(n):\n    return n + 1\nawait main(5)").value == 6


def test_what_a_task_leaves_running_is_cancelled(task: Task) -> None:
    code = (
        "import asyncio\nasync def wait():\n    try: await asyncio.sleep(60)\n    finally: print('cleaned')\n"
        "async def main():\n    asyncio.create_task(wait())\n    await asyncio.sleep(0)\n    return 1"
    )
    answer = task(code)
    assert (answer.value, answer.stdout) == (1, "cleaned\n")


def test_output_that_is_no_whole_line_comes_before_the_answer(session: Session) -> None:
    assert session.run("print('a', end='')").stdout == "a"
    assert session.run("import sys\nsys.stderr.write('b')\nNone").stderr == "b"


def test_lines_come_while_the_cell_still_runs(session: Session) -> None:
    session.send("print('working')\nimport time\nwhile True: time.sleep(60)")
    session.wait_for_output(b"working\n")
    session.interrupt()
    assert session.receive().error == "GuestInterrupted"


@pytest.mark.parametrize(
    "loop",
    [
        "while True: pass",
        "import time\nwhile True: time.sleep(60)",
        "import numpy as np\na = np.ones((50, 50))\nwhile True: a = (a @ a) % 7",
        "import asyncio\nawait asyncio.sleep(3600)",
        "import threading\nthreading.Event().wait()",
        "import asyncio\nasync def f():\n    while True: await asyncio.sleep(0)\nawait f()",
        "class Thing:\n    def _repr_html_(self):\n        while True: pass\nThing()",
        "class Thing:\n    def __repr__(self):\n        while True: pass\nThing()",
    ],
    ids=["loop", "sleep", "numpy", "await", "lock", "busy await", "rich form", "repr"],
)
def test_an_interrupt_ends_the_cell_and_keeps_the_state(session: Session, loop: str) -> None:
    session.run("x = 1")
    session.send(f"x = 2\nprint('running', flush=True)\n{loop}")
    session.wait_for_output(b"running\n")
    session.interrupt()
    answer = session.receive()
    assert answer.error == "GuestInterrupted"
    assert session.run("x").value == 2


def test_an_interrupt_of_a_busy_event_loop_is_never_lost(session: Session) -> None:
    session.run("import asyncio\nasync def spin():\n    while True: await asyncio.sleep(0)")
    for _ in range(50):
        session.send("print('running', flush=True)\nawait spin()")
        session.wait_for_output(b"running\n")
        session.interrupt()
        assert session.receive().error == "GuestInterrupted"


def test_an_interrupted_cell_says_where_it_was(session: Session) -> None:
    session.send("def spin():\n    print('running')\n    while True:\n        pass\nspin()")
    session.wait_for_output(b"running\n")
    session.interrupt()
    answer = session.receive()
    assert answer.where in ("cell 1, line 3", "cell 1, line 4", "cell 1, line 2")
    assert "in spin" in answer.traceback


def test_a_cell_may_clean_up_after_an_interrupt(session: Session) -> None:
    session.send(
        "try:\n    print('running')\n    while True: pass\nexcept KeyboardInterrupt:\n    result = 'kept'\nresult"
    )
    session.wait_for_output(b"running\n")
    session.interrupt()
    assert session.receive().value == "kept"


def test_a_second_interrupt_ends_what_survived_the_first(session: Session) -> None:
    once = (
        "try:\n    print('one')\n    while True: pass\nexcept KeyboardInterrupt: pass\nprint('two')\nwhile True: pass"
    )
    session.send(once)
    session.wait_for_output(b"one\n")
    session.interrupt()
    session.wait_for_output(b"two\n")
    session.interrupt()
    assert session.receive().error == "GuestInterrupted"


def test_interrupts_between_cells_are_ignored(session: Session) -> None:
    session.interrupt()
    assert session.run("x = 1\nx").value == 1
    for _ in range(20):
        session.interrupt()
    assert session.run("x").value == 1


def test_a_storm_of_interrupts_leaves_one_answer_per_cell(session: Session) -> None:
    for number in range(200):
        session.send(f"sum(range({number * 10}))")
        session.interrupt()
        answer = session.receive()
        assert answer.reply["op"] == "value" or answer.error == "GuestInterrupted"
    assert session.run("'alive'").value == "alive"


def test_a_cells_own_signal_handler_is_gone_with_it(session: Session) -> None:
    session.run("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)")
    session.send("print('running')\nwhile True: pass")
    session.wait_for_output(b"running\n")
    session.interrupt()
    assert session.receive().error == "GuestInterrupted"


def test_there_is_no_standard_input(session: Session) -> None:
    answer = session.run("input('name?')")
    assert "EOFError" in answer.what
    assert answer.stdout == "name?"


def test_hanging_up_ends_it(session: Session) -> None:
    session.run("x = 1")
    session.child.channel.close()
    end = session.child.exit()
    assert end is not None
    assert (end.signal, end.status) == (0, 0)


def test_a_session_burns_nothing_between_its_cells(session: Session) -> None:
    before_s = session.run("import time\ntime.process_time()").value
    select.select([], [], [], 0.3)
    assert session.run("time.process_time()").value - before_s < 0.06
