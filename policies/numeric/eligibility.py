"""Which functions are worth a try: a cheap look at the tree, before any types are known."""

from __future__ import annotations

import ast
from typing import Final

from runvisor.policies.python_syntax import UNPARSABLE, parse_python

_ALLOWED: Final = (
    ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For, ast.While,
    ast.If, ast.Raise, ast.Assert, ast.Expr, ast.Pass, ast.Break, ast.Continue, ast.BoolOp, ast.BinOp, ast.UnaryOp,
    ast.IfExp, ast.ListComp, ast.GeneratorExp, ast.comprehension, ast.Compare, ast.Call, ast.Constant, ast.Attribute,
    ast.Subscript, ast.Slice, ast.Name, ast.List, ast.Tuple, ast.expr_context, ast.operator, ast.boolop, ast.unaryop,
    ast.cmpop,
)  # fmt: skip
_EFFECTS: Final = frozenset({"print", "input", "open", "exec", "eval", "globals", "locals", "vars", "setattr"})


def objection(function: ast.stmt) -> str | None:
    r"""Say why a definition cannot be compiled, as far as its tree tells, or None.

    What ``raise`` and annotations hold is never run here, so it is not looked at.

    Example:
        >>> objection(ast.parse("def f(n):\n    print(n)").body[0])
        'it calls print'
    """
    if not isinstance(function, ast.FunctionDef):
        return "it is no plain function"
    arguments = function.args
    if function.decorator_list:
        return "it is decorated"
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs:
        return "its parameters are not plain"
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if not isinstance(node, _ALLOWED) or (isinstance(node, ast.FunctionDef)):
            return f"it holds {type(node).__name__}"
        if isinstance(node, ast.Name) and node.id in _EFFECTS:
            return f"it calls {node.id}"
        if isinstance(node, ast.Raise):
            continue
        if isinstance(node, ast.AnnAssign):
            pending += [part for part in (node.target, node.value) if part is not None]
            continue
        pending += ast.iter_child_nodes(node)
    return None


def candidates(code: str) -> tuple[str, ...]:
    r"""Name the functions of a source that may become hot and be compiled; none if it does not parse.

    For a scheduler: a task without any gains nothing from being accelerated.

    Example:
        >>> candidates("def f(n):\n    return sum(i * i for i in range(n))\nf(10)")
        ('f',)
    """
    try:
        tree = parse_python(code)
    except UNPARSABLE:
        return ()
    found = (node for node in tree.body if isinstance(node, ast.FunctionDef) and objection(node) is None)
    return tuple(node.name for node in found if repeats(node))


def repeats(function: ast.FunctionDef) -> bool:
    """Whether a function loops or calls itself; others are compiled only into their callers."""
    return any(
        isinstance(node, ast.For | ast.While | ast.ListComp | ast.GeneratorExp)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function.name)
        for node in ast.walk(function)
    )
