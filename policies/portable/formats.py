"""Whether a program may format a fraction, which Python 3.11 cannot do by a format of one's own."""

from __future__ import annotations

import ast
from typing import Final

_WHY: Final = "a Fraction takes a format only since Python 3.12"


def format_objection(tree: ast.Module) -> tuple[str, ast.AST] | None:
    r"""Say which place might format a Fraction with more than ``{}``, or None.

    A program that does not import `fractions` has none.

    Args:
        tree: The program.

    Example:
        >>> format_objection(ast.parse("f'{3:>8}'"))
        >>> format_objection(ast.parse("from fractions import Fraction\nf'{Fraction(3):>8}'"))[0]
        'a Fraction takes a format only since Python 3.12'
    """
    nodes = list(ast.walk(tree))
    if not any(_imports_fractions(node) for node in nodes):
        return None
    return next(((_WHY, node) for node in nodes if _may_format(node)), None)


def _imports_fractions(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name == "fractions" for alias in node.names)
    return isinstance(node, ast.ImportFrom) and node.module == "fractions"


def _may_format(node: ast.AST) -> bool:
    if isinstance(node, ast.FormattedValue):
        return node.format_spec is not None
    if isinstance(node, ast.Name):
        return node.id == "format"
    if not isinstance(node, ast.Attribute) or node.attr not in ("format", "format_map", "__format__"):
        return False
    template = node.value
    is_plain = isinstance(template, ast.Constant) and isinstance(template.value, str) and ":" not in template.value
    return not (is_plain and node.attr == "format")
