"""Parsing Python in a process with many threads.

CPython before 3.13 counts the depth of a syntax tree under construction in one counter
for the whole interpreter: two threads that parse at once may find it changed, and the
parse of a flawless source ends with a SystemError (python/cpython#106905).
"""

from __future__ import annotations

import ast
from typing import Final

_ATTEMPTS: Final = 100


def parse_python(source: str) -> ast.Module:
    """Parse a source; safe to call from many threads at once.

    Args:
        source: Python source.

    Raises:
        SyntaxError: It is not Python, or too large for the parser in another way:
            see `UNPARSABLE` for all that a source can raise.

    Example:
        >>> ast.dump(parse_python("x").body[0])
        "Expr(value=Name(id='x', ctx=Load()))"
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return ast.parse(source)
        except SystemError:  # disturbed; the counter starts anew each time
            continue
    return ast.parse(source)


UNPARSABLE: Final = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What `parse_python` raises for sources that are no Python, hold NUL, or nest too deeply."""
