"""Whether a program names an encoding that the Python inside wasm lacks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

_KNOWN: Final = frozenset(
    "ascii us_ascii cp1252 windows_1252 iso_8859_1 iso8859_1 latin1 latin_1 utf8 utf_8 utf_8_sig utf_16 utf_16_be "
    "utf_16_le utf_32 utf_32_be utf_32_le".split()
)
_PLACES: Final = {"encode": 0, "decode": 0, "str": 1, "bytes": 1, "bytearray": 1}
"""Which positional argument of a call names an encoding."""


def encoding_objection(tree: ast.Module) -> tuple[str, ast.AST] | None:
    """Say which encoding might be missing, or None.

    Args:
        tree: The program.

    Example:
        >>> encoding_objection(ast.parse("'a'.encode('UTF-8')"))
        >>> encoding_objection(ast.parse("'a'.encode('cp850')"))[0]
        'the encoding cp850 is not loaded everywhere'
    """
    for node in ast.walk(tree):
        for named in _encodings(node) if isinstance(node, ast.Call) else ():
            if not isinstance(named, ast.Constant) or not isinstance(named.value, str):
                return "an encoding that is computed may not be loaded everywhere", named
            if named.value.lower().replace("-", "_").replace(" ", "_") not in _KNOWN:
                return f"the encoding {named.value[:40]} is not loaded everywhere", named
    return None


def _encodings(call: ast.Call) -> Iterator[ast.expr]:
    """Yield the arguments of a call that may name an encoding."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    place = _PLACES.get(name)
    if place is not None and len(call.args) > place:
        yield call.args[place]
    yield from (keyword.value for keyword in call.keywords if keyword.arg == "encoding")
