"""How much a call of a function will have to do, guessed from its loops and its arguments."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Final

UNKNOWN_ROUNDS: Final = 16.0
"""Rounds of a loop over something that cannot be told before."""
WHILE_ROUNDS: Final = 32.0
STATEMENT_S: Final = 60e-9
"""What CPython takes for one statement, roughly."""
_MAX_ROUNDS: Final = 1e12


def seconds(function: ast.FunctionDef, sizes: Mapping[str, float], calls: Mapping[str, float] = {}) -> float:
    r"""Guess how long CPython takes for a call.

    Args:
        function: What is called.
        sizes: By name: the value of a number, the length of a list or string.
        calls: By name of a function that it calls: `statements` of that.

    Example:
        >>> tree = ast.parse("def f(n):\n    for i in range(n):\n        n += 1")
        >>> round(seconds(tree.body[0], {"n": 1000.0}), 9)
        6e-05
    """
    return statements(function, sizes, calls) * STATEMENT_S


def statements(function: ast.FunctionDef, sizes: Mapping[str, float], calls: Mapping[str, float]) -> float:
    """Guess how many statements a call runs; see `seconds`."""
    return _block(function.body, dict(sizes), calls)


def _block(body: list[ast.stmt], known: dict[str, float], calls: Mapping[str, float]) -> float:
    return sum(_statement(node, known, calls) for node in body)


def _statement(node: ast.stmt, known: dict[str, float], calls: Mapping[str, float]) -> float:
    if isinstance(node, ast.For):
        rounds = _rounds(node.iter, known)
        for name in ast.walk(node.target):
            if isinstance(name, ast.Name):
                known[name.id] = rounds / 2
        return rounds * _block(node.body, known, calls) + _block(node.orelse, known, calls)
    if isinstance(node, ast.While):
        return WHILE_ROUNDS * (1 + _block(node.body, known, calls)) + _block(node.orelse, known, calls)
    if isinstance(node, ast.If):
        test = _expression(node.test, known, calls)
        return test + max(_block(node.body, known, calls), _block(node.orelse, known, calls))
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        size = _size(node.value, known)
        if size is not None:
            known[node.targets[0].id] = size
    return 1 + sum(_expression(part, known, calls) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr))


def _expression(node: ast.AST, known: Mapping[str, float], calls: Mapping[str, float]) -> float:
    """Guess what calls and comprehensions in an expression add."""
    inner = sum(_expression(part, known, calls) for part in ast.iter_child_nodes(node))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        inner += calls.get(node.func.id, 0.0)
    if isinstance(node, ast.ListComp | ast.GeneratorExp):
        inner += 1
        for generator in node.generators:
            inner *= _rounds(generator.iter, known)
    return min(inner, _MAX_ROUNDS)


def _rounds(node: ast.expr, known: Mapping[str, float]) -> float:
    rounds = _size(node, known)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        parts = [_size(argument, known) for argument in node.args]
        match node.func.id, parts:
            case "range", [float(stop)]:
                rounds = stop
            case "range", [float(start), float(stop)]:
                rounds = stop - start
            case "range", [float(start), float(stop), float(step)] if step:
                rounds = (stop - start) / step
            case (("enumerate" | "zip" | "reversed"), [float(first), *_]):
                rounds = first
            case "reversed", [None]:
                rounds = _rounds(node.args[0], known)
    if rounds is None:
        return UNKNOWN_ROUNDS
    return min(max(rounds, 0.0), _MAX_ROUNDS)


def _size(node: ast.expr, known: Mapping[str, float]) -> float | None:
    """Guess a number, or how long a list is."""
    match node:
        case ast.Constant(value=bool() | int() | float() as number) if abs(number) < _MAX_ROUNDS:
            return float(number)
        case ast.Name():
            return known.get(node.id)
        case ast.Call(func=ast.Name(id="len" | "int" | "list"), args=[inner]):
            return _size(inner, known)
        case ast.BinOp():
            left, right = _size(node.left, known), _size(node.right, known)
            if isinstance(node.op, ast.Mult) and isinstance(node.left, ast.List):
                left = 1.0
            if left is None or right is None:
                return None
            return _combined(node.op, left, right)
    return None


def _combined(op: ast.operator, left: float, right: float) -> float | None:
    result: float | None = None
    match op:
        case ast.Add():
            result = left + right
        case ast.Sub():
            result = left - right
        case ast.Mult():
            result = left * right
        case ast.FloorDiv() | ast.Div() if right:
            result = left / right
        case ast.Pow() if 0 <= right <= 40 and 0 <= left <= 10:
            result = left**right
        case ast.LShift() if 0 <= right <= 40:
            result = left * 2**right
    return result if result is not None and abs(result) < _MAX_ROUNDS else None
