"""What parsers say: is it Python, and only Python; is it a JSON document.

Parsing never runs the code. Texts above `MAX_PARSED_CHARS` are not parsed: the
caller's latency bounds the work, not the sender's patience.
"""

from __future__ import annotations

import ast
import json
import re
from enum import Enum
from textwrap import dedent
from typing import Final

from runvisor.policies.python_syntax import UNPARSABLE, parse_python

MAX_PARSED_CHARS: Final = 16_384
_MAX_JSON_CHARS: Final = 1 << 20
_MAX_WALKED_CHARS: Final = 600

_ESCAPE = re.compile(r"\\([^\n\r])")

_PYTHON_STATEMENTS: Final = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Import,
    ast.ImportFrom,
    ast.Try,
    ast.Assert,
    ast.Delete,
    ast.Raise,
    ast.Global,
    ast.Match,
)
_PYTHON_EXPRESSIONS: Final = (
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
    ast.Lambda,
    ast.JoinedStr,
    ast.keyword,
    ast.Slice,
    ast.IfExp,
    ast.BoolOp,
    ast.Not,
    ast.In,
    ast.NotIn,
    ast.Is,
    ast.IsNot,
    ast.FloorDiv,
    ast.MatMult,
    ast.Starred,
    ast.NamedExpr,
)


class Python(Enum):
    """What the Python parser says of a text."""

    NO = "it does not parse as Python"
    TOO_LONG = "it is too long to parse"
    ALSO = "it parses as Python, and could be another language too"
    HARDLY = "it parses as Python, but says nothing in it"
    ONLY = "it parses as Python and uses syntax that only Python has"


def as_python(text: str) -> Python:
    """Say whether a text is Python.

    Example:
        >>> as_python("[x for x in xs]").name, as_python("x = 3").name, as_python("let x = 3").name
        ('ONLY', 'ALSO', 'NO')
    """
    if len(text) > MAX_PARSED_CHARS:
        return Python.TOO_LONG
    if "\\" in text:  # unknown escapes would print a warning on our stderr
        text = _ESCAPE.sub(lambda match: match[0] if match[1] in "\\'\"" else "xx", text)
    try:
        body = parse_python(dedent(text)).body
        if any(isinstance(statement, _PYTHON_STATEMENTS) or _is_typed(statement) for statement in body):
            return Python.ONLY
        if all(_says_nothing(statement) for statement in body):
            return Python.HARDLY
        if len(text) <= _MAX_WALKED_CHARS and any(map(_is_python_only, ast.walk(ast.Module(body, [])))):
            return Python.ONLY
    except UNPARSABLE:
        return Python.NO
    return Python.ALSO


def _is_typed(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.AnnAssign) and statement.value is not None


def _says_nothing(statement: ast.stmt) -> bool:
    """A lone name or ``a: b`` is a word of prose or YAML rather than a program."""
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Name)


def _is_python_only(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is None or isinstance(node.value, bool | bytes)
    return isinstance(node, _PYTHON_EXPRESSIONS)


def is_json_document(text: str) -> bool:
    """Say whether a text is one JSON object or array: data, not a program.

    Example:
        >>> is_json_document('{"a": [1, null]}'), is_json_document("[1, 2].length"), is_json_document("3")
        (True, False, False)
    """
    if text[:1] + text[-1:] not in ("{}", "[]") or len(text) > _MAX_JSON_CHARS:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
