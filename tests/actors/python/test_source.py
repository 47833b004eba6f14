"""Source as a task: the short way of compiling it means what the way through a tree means."""

from __future__ import annotations

import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.python import source
from runvisor.actors.python.coroutines import Coroutines
from runvisor.policies.errors import GuestSyntaxError

LINES = (
    "1 + 1",
    "x = 1",
    "x",
    "x := 2",
    "(x := 2)",
    "*x, 1",
    "'doc'",
    '"""',
    "'''a",
    "b'''",
    "if x:",
    "    y = 1",
    "    x",
    "else:",
    "for x in range(3):",
    "@f",
    "def f(): return 7",
    "f()",
    "(",
    ")",
    "[1,",
    "2]",
    "x = \\",
    "1 + \\",
    "x; y",
    "y = 1;",
    "# note",
    "x  # note",
    "",
    "  ",
    "\t1",
    "lambda: x",
    "class A: z = 1",
    "A.z",
    "await g()",
    "async def g(): return 3",
    "return 1",
    "yield 1",
    "__doc__",
    "1 /",
    "\f1",
    "1\u00a0",
    "x\\",
)


def outcome(compiler: source.Compiler, code: str) -> Any:
    """Return the value, what was left in the namespace, and the line of an error."""
    coroutines = Coroutines()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        value = source.run(source.parse(code, "<task>", compiler), namespace, None, coroutines).value
        error: Any = None
    except GuestSyntaxError as caught:
        value, error = None, (caught.what, caught.where)
    except Exception as caught:
        trace = caught.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        value, error = None, (repr(caught), trace.tb_lineno if trace else 0)
    finally:
        coroutines.close()
    namespace.pop("__builtins__", None)
    plain = {name: _plain(item) for name, item in namespace.items()}
    return _plain(value), plain, error


def _plain(value: Any) -> Any:
    return type(value).__name__ if isinstance(value, type | types.FunctionType) else value


def through_a_tree(tree: Any, filename: str, flags: int) -> types.CodeType:
    return source.compile_plainly(tree, filename, flags)


@given(st.lists(st.sampled_from(LINES), max_size=6), st.sampled_from(["", "\n", "\n\n", " \n", "\r\n"]))
@pytest.mark.filterwarnings("ignore")
def test_both_ways_of_compiling_mean_the_same(lines: list[str], end: str) -> None:
    code = "\n".join(lines) + end
    assert outcome(source.compile_plainly, code) == outcome(through_a_tree, code)


@pytest.mark.parametrize(
    ("code", "value"),
    [("x = 1\nx + 1", 2), ("'''a\n1 + 1'''", "a\n1 + 1"), ("x = 2 + \\\n1", None), ("[1,\n2]", [1, 2])],
)
def test_the_value_is_that_of_the_last_expression(code: str, value: Any) -> None:
    assert outcome(source.compile_plainly, code)[0] == value


def test_a_traceback_names_the_line_of_the_whole() -> None:
    assert outcome(source.compile_plainly, "x = 1\n\n\nx / 0")[2] == ("ZeroDivisionError('division by zero')", 4)
