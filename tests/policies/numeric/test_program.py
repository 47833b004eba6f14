"""What is compiled, to what types, and what is refused, in words."""

from __future__ import annotations

import ast
from collections.abc import Mapping

import pytest

from runvisor.policies.numeric.program import Compiled, Shape, compile_program
from runvisor.policies.numeric.types import Unsupported

NAMES = {
    name: f"builtin:{name}" for name in ("range", "len", "min", "sum", "abs", "list", "enumerate", "divmod", "dict")
}


def compiled(source: str, *arguments: str, names: Mapping[str, str] = {}) -> Compiled:
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    known = {name: f"function:{name}" for name in functions}
    return compile_program(functions, next(iter(functions)), arguments, {**NAMES, **known, **names})


@pytest.mark.parametrize(
    ("source", "arguments", "result"),
    [
        ("def f(a): return a + 1", ["int"], "int"),
        ("def f(a): return a + 1", ["float"], "float"),
        ("def f(a): return a / 2", ["int"], "float"),
        ("def f(a): return a < 2", ["int"], "bool"),
        ("def f(a): return 1 if a else 0.5", ["bool"], "number"),
        ("def f(a): a.append(1)", ["list[int]"], "None"),
        ("def f(a): return a[0]", ["list[list[float]]"], "list[float]"),
        ("def f(a): return a, 1.5", ["int"], "tuple[int,float]"),
        ("def f(a): return [x / 2 for x in a]", ["list[int]"], "list[float]"),
        ("def f(a): return a[0]", ["str"], "char"),
        ("def f(a): return g(a)\ndef g(b): return b * 0.5", ["int"], "float"),
        ("def f(a): return 1 if a < 2 else a * f(a - 1)", ["int"], "int"),
    ],
)
def test_the_type_of_a_result(source: str, arguments: list[str], result: str) -> None:
    assert compiled(source, *arguments).result.layout == result


def test_what_may_be_changed_is_told() -> None:
    shapes = compiled("def f(a, b):\n a[0] = b[0]\n return len(b)", "list[int]", "list[int]").parameters
    assert [shape.mutated for shape in shapes] == [True, False]


def test_a_list_that_gets_a_float_is_passed_as_numbers() -> None:
    (shape,) = compiled("def f(a):\n a[0] = a[0] / 2", "list[int]").parameters
    assert shape == Shape("list", (Shape("number"),), mutated=True)


def test_an_empty_list_gets_its_type_from_its_use() -> None:
    (shape,) = compiled("def f(a):\n a.append(0.5)", "list[unknown]").parameters
    assert shape.layout == "list[float]"


def test_globals_that_are_read_are_asked_for() -> None:
    result = compiled("def f(a): return a * K + len(T)", "int", names={"K": "float", "T": "list[int]", "U": "int"})
    assert [name for name, _ in result.globals] == ["K", "T"]


def test_functions_that_are_called_come_along() -> None:
    source = "def f(a): return g(a) + 1\ndef g(b): return h(b)\ndef h(c): return -c\ndef other(): return 0"
    assert compiled(source, "int").functions == ("f", "g", "h")
    assert not compiled(source, "int").recursive
    assert compiled("def f(a): return g(a)\ndef g(b): return f(b - 1) if b else 0", "int").recursive


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(a): return b", "the name 'b'"),
        ("def f(a): return 2 ** 64 + a", "beyond 64 bits"),
        ("def f(a): return {a}", "the expression Set"),
        ("def f(a): return dict(a)", "dict of int"),
        ("def f(a):\n if a: return 1", "None or int|int or None"),
        ("def f(a):\n a = True\n a = 1", "bool or int|int or bool"),
        ("def f(a): return [a, [a]]", "int or list"),
        ("def f(a): return f(a, a)", "this call of 'f'"),
        ("def f(a): return range(a)", "range"),
        ("def f(a):\n b = [a]\n b += [a]", "in place by an operator"),
        ("def f(a):\n b = [a]\n b[0:1] = [a]", "this target"),
        ("def f(a):\n b = []\n for i in range(a): b = [b]\n return b", "a list in itself"),
    ],
)
def test_what_is_not_compiled_is_said(source: str, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        compiled(source, "int")


def test_sums_of_floats_are_left_to_an_interpreter_that_compensates() -> None:
    tree = ast.parse("def f(a): return sum(a)").body[0]
    assert isinstance(tree, ast.FunctionDef)
    with pytest.raises(Unsupported, match="sum of floats"):
        compile_program({"f": tree}, "f", ["list[float]"], NAMES, compensated_sums=True)
    assert compile_program({"f": tree}, "f", ["list[int]"], NAMES, compensated_sums=True).result.kind == "int"
