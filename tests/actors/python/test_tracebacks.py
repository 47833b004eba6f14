"""Errors speak of the guest's own lines."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from runvisor.actors.jail.probe import probe_jail
from tests.actors.python.driving import Answer, Session

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
Task = Callable[..., Answer]


def lines_of(answer: Answer) -> list[int]:
    return [int(number) for number in re.findall(r'File "<[^"]*>", line (\d+)', answer.traceback)]


def test_only_the_guests_frames_are_shown_with_their_lines(task: Task) -> None:
    answer = task("import numpy as np\ndef f(a):\n    return np.linalg.inv(a)\n\nf(np.zeros((2, 2)))")
    assert answer.what == "LinAlgError: Singular matrix"
    assert answer.where == "line 3"
    assert lines_of(answer) == [5, 3]
    assert "return np.linalg.inv(a)" in answer.traceback
    assert "linalg.py" not in answer.traceback
    assert "interpreter.py" not in answer.traceback


def test_causes_and_contexts_are_chained(task: Task) -> None:
    code = "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v') from e"
    answer = task(code)
    assert lines_of(answer) == [2, 4]
    assert "direct cause" in answer.traceback
    assert answer.what == "ValueError: v"


def test_groups_show_their_members_with_the_guests_frames_only(task: Task) -> None:
    code = (
        "import asyncio\nasync def bad():\n    raise ValueError('inside')\n"
        "async def main():\n    async with asyncio.TaskGroup() as group:\n        group.create_task(bad())"
    )
    answer = task(code)
    assert "ExceptionGroup" in answer.what
    assert "ValueError: inside" in answer.traceback
    assert "raise ValueError('inside')" in answer.traceback
    assert "taskgroups.py" not in answer.traceback


@pytest.mark.parametrize(
    "code",
    [
        "def f(): return f()\nf()",
        "def f(): return g()\ndef g(): return f()\nf()",
        "import sys\nsys.setrecursionlimit(20_000)\ndef f(n): return g(n)\ndef g(n): return f(n + 1)\nf(0)",
        "import json\ndef f(x):\n    return json.dumps(x, default=f)\nf(object())",
    ],
)
def test_endless_recursion_is_told_in_few_lines(task: Task, code: str) -> None:
    answer = task(code)
    assert answer.what.startswith("RecursionError")
    assert len(answer.traceback.splitlines()) < 90
    assert "more" in answer.traceback


def test_a_syntax_error_has_its_line_and_a_caret(task: Task) -> None:
    answer = task("x = 1\nif x\n    pass")
    assert (answer.error, answer.where) == ("GuestSyntaxError", "2:5")
    assert answer.what == "SyntaxError: expected ':'"
    assert "    if x\n        ^" in answer.traceback


@pytest.mark.parametrize("line", ["%matplotlib inline", "!pip install x", "  %time f()", "len?"])
def test_magics_are_refused_as_what_they_are(task: Task, line: str) -> None:
    answer = task(f"x = 1\n{line}\nx")
    assert answer.error == "GuestSyntaxError"
    assert "IPython" in answer.remedy


def test_the_guests_own_modules_are_the_guests_lines(task: Task) -> None:
    write = "open('mine.py', 'w').write('def f():\\n    return 1 / 0')"
    code = f"{write}\nimport sys\nsys.path.append('/tmp')\nimport mine\nmine.f()"
    answer = task(code)
    assert 'File "/tmp/mine.py", line 2' in answer.traceback


@pytest.mark.parametrize(
    "body", ["def __str__(self): 1/0", "def __str__(self): return 5", "__class__ = property(lambda self: 1/0)"]
)
def test_an_exception_that_cannot_be_shown_is_still_an_error(task: Task, body: str) -> None:
    answer = task(f"class E(Exception):\n    {body}\nraise E('x')")
    assert answer.error == "GuestException"
    assert "E" in answer.what
    assert answer.what.startswith("E: ")


def test_annotations_mean_what_they_mean_without_a_future_import(task: Task) -> None:
    assert task("def f(x: int): pass\nf.__annotations__['x'] is int").value is True
    assert task("from __future__ import annotations\ndef f(x: int): pass\nf.__annotations__['x']").value == "int"
    assert task("from __future__ import annotations\n(lambda: 1)()").value == 1


def test_cells_are_named_also_when_a_later_one_calls_them(session: Session) -> None:
    session.run("def divide(n):\n    return 1 / n")
    session.run("x = 1")
    answer = session.run("x = 2\ndivide(0)")
    assert answer.where == "cell 1, line 2"
    assert 'File "<cell 3>", line 2, in <module>\n    divide(0)' in answer.traceback
    assert 'File "<cell 1>", line 2, in divide\n    return 1 / n' in answer.traceback
