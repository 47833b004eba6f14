"""The cheap look at a tree, and the guess of a call's length."""

from __future__ import annotations

import ast

import pytest

from runvisor.policies.numeric.eligibility import candidates, objection, repeats
from runvisor.policies.numeric.estimate import seconds


def function(source: str) -> ast.FunctionDef:
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(a, b=1): return a + b", None),
        ("def f(a):\n raise ValueError(f'{a}')", None),
        ("def f(a: int) -> int:\n b: int = a\n return b", None),
        ("def f(a): print(a)", "it calls print"),
        ("def f(*a): return a", "its parameters are not plain"),
        ("def f(a):\n def g(): pass", "it holds FunctionDef"),
        ("def f(a): return lambda: a", "it holds Lambda"),
        ("def f(a): yield a", "it holds Yield"),
        ("def f(a):\n try: pass\n finally: pass", "it holds Try"),
        ("def f(a): return {}", "it holds Dict"),
        ("@g\ndef f(a): return a", "it is decorated"),
    ],
)
def test_why_a_function_is_left_alone(source: str, reason: str | None) -> None:
    assert objection(function(source)) == reason


def test_what_repeats_may_become_hot() -> None:
    assert repeats(function("def f(n):\n while n: n -= 1"))
    assert repeats(function("def f(n): return f(n - 1)"))
    assert repeats(function("def f(n): return [i for i in n]"))
    assert not repeats(function("def f(n): return n + 1"))


def test_a_source_names_its_candidates() -> None:
    source = "def f(n):\n while n: n -= 1\ndef g(n): return n\ndef h(n):\n while n: print(n)\nclass C: pass"
    assert candidates(source) == ("f",)
    assert candidates("def f(:") == ()
    assert candidates("\0") == ()


def test_a_guess_follows_ranges_lengths_and_calls() -> None:
    nested = function("def f(n, a):\n m = n * 2\n for i in range(m):\n  for x in a:\n   n += x")
    assert seconds(nested, {"n": 10.0, "a": 5.0}) == pytest.approx(101 * 60e-9)
    calling = function("def f(n):\n for i in range(n):\n  g(i)")
    assert seconds(calling, {"n": 10.0}, {"g": 99.0}) == pytest.approx(1000 * 60e-9)


def test_a_guess_never_fails_on_odd_sizes() -> None:
    odd = function("def f(n):\n for i in range(2 ** n, n // 0, 10 ** 300):\n  for j in range(n * 1e300): pass")
    assert seconds(odd, {"n": 1e11}) >= 0
    assert seconds(odd, {"n": -1e11}) >= 0
