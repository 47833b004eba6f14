"""What is portable and what is not; that portable programs answer alike is tested where both interpreters run."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.policies.portable.check import objection
from runvisor.policies.portable.fitness import ARM, portable_fitness
from runvisor.policies.portable.modules import IMAGE_MODULES
from runvisor.policies.portable.names import PORTABLE_NAMES
from runvisor.policies.task import Task

DIFFERENT = {
    "sum of floats, compensated since 3.12": ("sum([0.1] * 10)", "sum"),
    "sum of what is not known": ("def f(xs):\n    return sum(xs)", "sum"),
    "sum as a value": ("list(map(sum, [[0.1, 0.2]]))", "sum"),
    "a power of floats": ("x = 1.5\nx ** 2", "\\*\\*"),
    "a root": ("2 ** 0.5", "\\*\\*"),
    "a negative power": ("2 ** -1", "\\*\\*"),
    "a power of a parameter": ("def f(n):\n    return n ** 2", "\\*\\*"),
    "a power in place": ("x = 3\nx **= 2", "\\*\\*"),
    "pow of floats": ("pow(1.5, 2)", "pow"),
    "a sine": ("import math\nmath.sin(1)", "math.sin"),
    "a sine by name": ("from math import sin\nsin(1)", "math.sin"),
    "a sine by another name": ("import math as m\nm.sin(1)", "math.sin"),
    "a normal distribution": ("import random\nrandom.gauss(0, 1)", "random.gauss"),
    "a module as a value": ("import math\nf = getattr(math, 'sin')", "module math"),
    "the order of a set": ("for x in {1.5, 2.5}:\n    print(x)", "order"),
    "a set printed": ("print({1, 2})", "order"),
    "a set in a list": ("list({'a', 'b'})", "order"),
    "a set in a text": ("f'{ {1, 2} }'", "order"),
    "a set through a name": ("s = set()\ns.add(1)\n[x for x in s]", "order"),
    "a set given on": ("def f(x):\n    return list(x)\nf({1, 2})", "order"),
    "a set returned": ("def f():\n    return {1, 2}\nlist(f())", "order"),
    "a set from views": ("for k in {'a': 1}.keys() - {'b': 2}.keys():\n    print(k)", "order"),
    "a set popped": ("s = {1, 2}\ns.pop()", "order"),
    "a hidden set": ("from collections import defaultdict\nd = defaultdict(set)", "followed"),
    "a method of 3.12": ("n = 1\nn.is_integer()", "is_integer"),
    "a hash": ("hash('a')", "hash"),
    "an address": ("id(1)", "id"),
    "the text of an exception": ("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    str(e)", "exception e"),
    "complex numbers": ("1j * 2", "complex"),
    "sizes of the machine": ("import struct\nstruct.calcsize('l')", "struct"),
    "a format that is computed": ("import struct\nstruct.pack('<' + 'I', 1)", "struct"),
    "the C library's dates": ("import datetime\ndatetime.date(2026, 1, 1).strftime('%-d')", "strftime"),
    "the length of a huge range": ("len(range(10 ** 10))", "range"),
    "a name of 3.12": ("from itertools import batched", "itertools.batched"),
    "a name of 3.14": ("import math\nmath.fma(1, 2, 3)", "math.fma"),
    "syntax of 3.12": ("type X = int", "parse"),
    "an annotation that raises in 3.11": ("def f(x: Y):\n    return x\nclass Y:\n    pass", "annotation"),
    "an annotation of its own class": ("class A:\n    def f(self, other: A):\n        return 1", "annotation"),
    "an annotation with an effect": ("def f(x: print('hi')):\n    return x", "annotation"),
    "numpy": ("import numpy", "numpy"),
    "a star": ("from math import *", "math"),
    "files": ("open('x')", "open"),
    "the system": ("import os", "os"),
    "the interpreter": ("import sys", "sys"),
    "threads": ("import threading", "threading"),
    "subprocesses": ("import subprocess", "subprocess"),
    "sockets": ("import socket", "socket"),
    "standard input": ("input()", "input"),
    "await": ("async def main():\n    return 1", "Async"),
    "eval": ("eval('1')", "eval"),
    "an import by name": ("__import__('os')", "__import__"),
    "insides": ("print.__self__", "__self__"),
    "insides by name": ("getattr(print, '__self__')", "getattr"),
    "insides by a computed name": ("getattr(1, 'a' + 'b')", "getattr"),
    "docstrings, stripped since 3.13": ("def f():\n    '''  a'''\nf.__doc__", "__doc__"),
    "a finaliser": ("class A:\n    def __del__(self):\n        print(1)", "__del__"),
    "rich output": ("class A:\n    def _repr_html_(self):\n        return ''", "_repr_html_"),
    "display": ("display(1)", "display"),
    "a builtin redefined": ("def len(x):\n    return 0.5\nsum(len(x) for x in 'ab')", "redefines"),
    "an unknown name": ("undefined_name + 1", "undefined_name"),
}


@pytest.mark.parametrize(("code", "says"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_may_differ_is_found(code: str, says: str) -> None:
    why = objection(code)
    assert why is not None
    assert re.search(says, why), why


@pytest.mark.parametrize(
    "code",
    [
        "sum(i * i for i in range(10))",
        "sum(len(word) for word in 'a b'.split())",
        "sum(x > 1 for x in [0.5, 1.5])",
        "n = 3\nn ** 2 + 2 ** 10",
        "[2 ** i for i in range(8)]",
        "pow(3, 5, 7)",
        "s = set()\nfor x in [1, 2, 1]:\n    if x in s:\n        continue\n    s.add(x)\nlen(s), sorted(s)",
        "a = {1, 2}\nb = {2, 3}\nsorted(a & b), a <= b, a == b",
        "x = 'a' in {'a', 'b'}",
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    x = 1\nx",
        "try:\n    1 / 0\nexcept Exception as e:\n    name = type(e).__name__\nname",
        "import math as m\nm.sqrt(2)",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: 'P | None' = None\nP(1).x",
        "from typing import Optional\ndef f(x: Optional[list[int]] = None) -> dict[str, int]:\n    return {}\nf()",
        "from __future__ import annotations\ndef f(x: Y): return x\nclass Y: pass",
        "import struct\nstruct.unpack('<I', b'abcd')",
        "import datetime as dt\ndt.datetime(2026, 1, 2).strftime('%Y-%m-%d %H:%M')",
        "def main(inputs):\n    return inputs['n'] * 2",
        "from collections import Counter\nCounter('hello').most_common(2)",
        "from urllib.parse import quote\nquote('a b')",
        "for i in range(10 ** 12):\n    break\ni",
    ],
)
def test_what_is_alike_stays(code: str) -> None:
    assert objection(code) is None


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=" abx0123()[]{}:=.,+*-'\n\t\"sumset", max_size=60))
def test_any_text_gets_an_answer(code: str) -> None:
    assert objection(code) is None or isinstance(objection(code), str)


def test_deep_nesting_is_an_objection() -> None:
    assert objection("-" * 5_000 + "1") is not None
    assert objection("(" * 50_000) is not None


def test_the_names_exist_here() -> None:
    for module, names in PORTABLE_NAMES.items():
        loaded = __import__(module, fromlist=["x"])
        assert {name for name in names if not hasattr(loaded, name)} == set(), module
    assert set(PORTABLE_NAMES) - {"__future__"} <= set(IMAGE_MODULES)
    assert sys.version_info >= (3, 11)


def unfit(task: Task, *, is_alone: bool = False) -> bool:
    return ARM in portable_fitness(task, is_alone=is_alone)[0]


def test_tasks_with_files_arrays_or_much_input_do_not_fit() -> None:
    assert not unfit(Task("1", "python", {"x": [1, {"y": None}]}))
    assert unfit(Task("1", "python", files={"a": b""}), is_alone=True)
    assert unfit(Task("1", "python", {"x": [np.zeros(2)]}), is_alone=True)
    assert unfit(Task("1", "python", list(range(50_000))))


def test_a_task_that_no_other_arm_may_run_is_taken_whatever_it_is() -> None:
    task = Task("import math\nmath.sin(1)", "python")
    assert unfit(task)
    assert not unfit(task, is_alone=True)
    assert "math.sin" in portable_fitness(task, is_alone=True)[1]
