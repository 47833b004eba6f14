"""Whether a program lets the order of a set show: it differs with the width of hashes, and from run to run."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Final

_KINDS: Final = frozenset({"set", "frozenset"})
_GIVING_SETS: Final = frozenset({"union", "intersection", "difference", "symmetric_difference"})
_METHODS: Final = _GIVING_SETS | frozenset(
    "add discard remove clear update intersection_update difference_update symmetric_difference_update issubset "
    "issuperset isdisjoint copy".split()
)
_ORDERLESS_CALLS: Final = frozenset({"len", "sorted", "min", "max", "bool", "set", "frozenset", "isinstance"})
_SET_OPERATORS: Final = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.Sub)
_VIEWS: Final = frozenset({"keys", "items"})


def set_objection(tree: ast.Module, parents: Mapping[ast.AST, ast.AST]) -> tuple[str, ast.AST] | None:
    """Say where the order of a set could show, or None if it cannot.

    A set may be bound to a name, changed, compared, asked for members and
    combined; sorted or counted; nothing else.

    Args:
        tree: The program.
        parents: The parent of each of its nodes.
    """
    names = _set_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _KINDS and isinstance(node.ctx, ast.Load):
            parent = parents[node]
            is_called = isinstance(parent, ast.Call) and parent.func is node
            if not is_called and not _is_type_place(node, parents):
                return "a set is made where it cannot be followed", node
        if isinstance(node, ast.expr) and _is_set(node, names) and not _is_safe(node, parents, names):
            return "the order of a set could show", node
    return None


def _set_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    while True:
        found = {
            target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr | ast.AugAssign)
            and node.value is not None
            and _is_set(node.value, names)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        if found <= names:
            return names
        names |= found


def _is_set(node: ast.expr, names: set[str]) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Name(id=name, ctx=ast.Load()):
            return name in names
        case ast.Call(func=ast.Name(id=name)):
            return name in _KINDS
        case ast.Call(func=ast.Attribute(attr=attr)) if attr in _GIVING_SETS:
            return True
        case ast.Call(func=ast.Attribute(value=owner, attr="copy")):
            return _is_set(owner, names)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _SET_OPERATORS):
            return any(_is_set(side, names) or _is_view(side) for side in (left, right))
        case ast.IfExp(body=body, orelse=other):
            return _is_set(body, names) or _is_set(other, names)
        case ast.BoolOp(values=values):
            return any(_is_set(value, names) for value in values)
        case ast.NamedExpr(value=value):
            return _is_set(value, names)
    return False


def _is_view(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _VIEWS


def _is_safe(node: ast.expr, parents: Mapping[ast.AST, ast.AST], names: set[str]) -> bool:
    parent = parents[node]
    match parent:
        case ast.Assign(targets=targets):
            return all(isinstance(target, ast.Name) for target in targets)
        case ast.AnnAssign(target=target):
            return isinstance(target, ast.Name)
        case ast.AugAssign(target=target):
            return isinstance(target, ast.Name) and target.id in names
        case ast.Compare() | ast.If() | ast.While():
            return True
        case ast.IfExp(test=test):
            return node is test or _is_safe(parent, parents, names)
        case ast.UnaryOp(op=ast.Not()):
            return True
        case ast.BinOp() | ast.BoolOp():
            return _is_safe(parent, parents, names)
        case ast.Call(func=ast.Name(id=name)):
            return name in _ORDERLESS_CALLS and not parent.keywords
        case ast.Call(func=ast.Attribute(value=owner, attr=attr)):
            return attr in _METHODS and _is_set(owner, names)
        case ast.Attribute(attr=attr):
            above = parents[parent]
            return attr in _METHODS and isinstance(above, ast.Call) and above.func is parent
    return False


def _is_type_place(node: ast.AST, parents: Mapping[ast.AST, ast.AST]) -> bool:
    """Whether it stands in an annotation, or as what ``isinstance`` compares with."""
    while True:
        parent = parents.get(node)
        match parent:
            case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=annotation):
                return node is annotation
            case ast.FunctionDef(returns=returns):
                return node is returns
            case ast.Call(func=ast.Name(id="isinstance"), args=[_, kind]):
                return node is kind
            case ast.Subscript() | ast.Tuple() | ast.BinOp():
                node = parent
            case _:
                return False
