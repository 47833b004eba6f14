"""Whether a program's annotations can raise: until Python 3.13 they are evaluated, since 3.14 only when asked for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from runvisor.policies.portable.names import PORTABLE_BUILTINS

_ALWAYS_KNOWN: Final = PORTABLE_BUILTINS - {"inputs"}


def annotation_objection(tree: ast.Module) -> tuple[str, ast.AST] | None:
    """Say which annotation might be evaluated differently, or None.

    Harmless are names that are known by then (builtins, and what the module has
    bound above), subscripts of them, unions and constants.

    Args:
        tree: The program.
    """
    if any(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" and node.names[0].name == "annotations"
        for node in tree.body
    ):
        return None
    known: dict[str, int] = {}
    for statement in tree.body:
        for name in _names_bound_by(statement):
            known.setdefault(name, statement.end_lineno or statement.lineno)
    for node in _annotations(tree):
        if not _is_harmless(node, known):
            return "an annotation may raise before Python 3.14", node
    return None


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(annotation=annotation) | ast.arg(annotation=ast.expr() as annotation):
                yield annotation
            case ast.FunctionDef(returns=ast.expr() as annotation):
                yield annotation


def _names_bound_by(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [alias.asname or alias.name for alias in aliases]
        case ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=[ast.Name(id=name)]):
            return [name]
    return []


def _is_harmless(node: ast.expr, known: dict[str, int]) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name in _ALWAYS_KNOWN or known.get(name, node.lineno) < node.lineno
        case ast.Attribute(value=ast.Name(id=name)):
            return known.get(name, node.lineno) < node.lineno
        case ast.Subscript(value=value, slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _is_harmless(value, known) and all(_is_harmless(part, known) for part in parts)
        case ast.List(elts=elements):
            return all(_is_harmless(element, known) for element in elements)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            sides = (left, right)
            is_text = any(isinstance(side, ast.Constant) and side.value is not None for side in sides)
            return not is_text and all(_is_harmless(side, known) for side in sides)
    return False
