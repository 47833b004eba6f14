"""Which expressions are surely whole numbers, whatever the inputs.

``sum`` adds floats in another way since Python 3.12, and ``**`` of floats is the C
library's: both are portable for whole numbers only.
"""

from __future__ import annotations

import ast
from typing import Final

_KEEPING: Final = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift)
_WHOLE_CALLS: Final = frozenset({"len", "int", "ord"})


class WholeNumbers:
    r"""The names of a program that are whole numbers wherever they are bound.

    Args:
        tree: The program.

    Example:
        >>> tree = ast.parse("n = 3\nx = 0.5\nfor i in range(n):\n    n += i")
        >>> sorted(WholeNumbers(tree).names)
        ['i', 'n']
    """

    def __init__(self, tree: ast.Module) -> None:
        values: dict[str, list[ast.expr | None]] = {}
        self._counters: set[str] = set()
        seen_elsewhere: set[str] = set()
        for node in ast.walk(tree):
            _note(node, values, seen_elsewhere)
        for node in ast.walk(tree):
            if isinstance(node, ast.For | ast.comprehension) and isinstance(node.target, ast.Name):
                bindings = values.get(node.target.id, [])
                if len(bindings) == 1 and _counts_up(node.iter):
                    self._counters.add(node.target.id)
        self.names: set[str] = set(values) - seen_elsewhere
        self._counters &= self.names
        while wrong := {
            name for name in self.names if any(value is None or not self.is_whole(value) for value in values[name])
        }:
            self.names -= wrong

    def is_whole(self, node: ast.expr) -> bool:
        """Say whether an expression is a whole number or a truth value for sure."""
        match node:
            case ast.Constant(value=value):
                return isinstance(value, int)
            case ast.Name(id=name):
                return name in self.names
            case ast.UnaryOp(op=ast.Not()) | ast.Compare():
                return True
            case ast.UnaryOp(operand=operand):
                return self.is_whole(operand)
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                return self.is_power(left, right)
            case ast.BinOp(left=left, op=op, right=right):
                return isinstance(op, _KEEPING) and self.is_whole(left) and self.is_whole(right)
            case ast.IfExp(body=body, orelse=other):
                return self.is_whole(body) and self.is_whole(other)
            case ast.Call(func=ast.Name(id="abs"), args=[only], keywords=[]):
                return self.is_whole(only)
            case ast.Call(func=ast.Name(id="sum"), args=[only], keywords=[]):
                return self.holds_whole(only)
            case ast.Call(func=ast.Name(id=name)):
                return name in _WHOLE_CALLS
        return False

    def is_power(self, base: ast.expr, exponent: ast.expr) -> bool:
        """Say whether ``base ** exponent`` is one of whole numbers that gives a whole number."""
        match exponent:
            case ast.Constant(value=int(number)):
                return number >= 0 and self.is_whole(base)
            case ast.Name(id=name):
                return name in self._counters and self.is_whole(base)
        return False

    def holds_whole(self, node: ast.expr) -> bool:
        """Say whether iterating gives whole numbers only."""
        match node:
            case ast.Call(func=ast.Name(id="range")):
                return True
            case ast.Call(func=ast.Name(id="map"), args=[ast.Name(id=name), *_]):
                return name in _WHOLE_CALLS
            case ast.GeneratorExp(elt=element) | ast.ListComp(elt=element):
                return self.is_whole(element)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return all(map(self.is_whole, elements))
        return False


def _counts_up(node: ast.expr) -> bool:
    """Whether it is a range of numbers that are not negative."""
    match node:
        case ast.Call(func=ast.Name(id="range"), args=[_], keywords=[]):
            return True
        case ast.Call(func=ast.Name(id="range"), args=[ast.Constant(value=int(first)), _], keywords=[]):
            return first >= 0
    return False


def _note(node: ast.AST, values: dict[str, list[ast.expr | None]], elsewhere: set[str]) -> None:
    """Note what a node binds names to; None is something unknown."""
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                _bind(target, value, values)
        case ast.AnnAssign(target=target, value=value) if value is not None:
            _bind(target, value, values)
        case ast.NamedExpr(target=target, value=value):
            _bind(target, value, values)
        case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
            values.setdefault(name, []).append(value if isinstance(op, _KEEPING) else None)
        case ast.For(target=target, iter=source) | ast.comprehension(target=target, iter=source):
            is_range = isinstance(source, ast.Call) and getattr(source.func, "id", "") == "range"
            _bind(target, ast.Constant(value=0) if is_range else None, values)
        case ast.arg(arg=name) | ast.alias(asname=str(name)) | ast.alias(name=name):
            elsewhere.add(name)
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            elsewhere.add(name)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            elsewhere.add(name)
        case ast.MatchMapping(rest=str(name)):
            elsewhere.add(name)
        case ast.withitem(optional_vars=ast.expr() as target):
            _bind(target, None, values)


def _bind(target: ast.expr, value: ast.expr | None, values: dict[str, list[ast.expr | None]]) -> None:
    if isinstance(target, ast.Name):
        values.setdefault(target.id, []).append(value)
    elif isinstance(target, ast.Tuple | ast.List):
        parts: list[ast.expr | None] = [None] * len(target.elts)
        if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
            parts = list(value.elts)
        for inner, part in zip(target.elts, parts, strict=True):
            _bind(inner, part, values)
    elif isinstance(target, ast.Starred):
        _bind(target.value, None, values)
