"""How a program is to be run, by a look at its text: the same look for every engine."""

from __future__ import annotations

import re
from typing import Final

_MAIN_BINDING: Final = re.compile(r"^(const|let)(\s+main\s*=)", re.MULTILINE)
_MAIN_CALL: Final = re.compile(r"^(?!\s*(?:async\s+)?function\b)[^\n]*?(?<![\w.$])main\s*\(", re.MULTILINE)
_COMMONJS: Final = re.compile(r"\bmodule\.exports\b|\bexports\.[\w$]|(?<![\w.$])require\s*\(")
_MODULE: Final = re.compile(r"(?<![\w.$])(?:import|export|await)\b")
# As a script these parse, and mean something else: a call of a function named await, or an import that fails.
_SURELY_MODULE: Final = re.compile(r"(?<![\w.$])(?:await\s*[(\[`+\-/]|import\s*\()")


def calls_main(code: str) -> bool:
    r"""Whether the program calls its ``main`` by itself.

    Example:
        >>> calls_main("function main() {}"), calls_main("function main() {}\nmain()")
        (False, True)
    """
    return bool(_MAIN_CALL.search(code))


def visible_main(code: str) -> str:
    """Let ``const main = ...`` be found as ``function main`` is, without moving a column.

    Example:
        >>> visible_main("const main = () => 1")
        'var   main = () => 1'
    """
    return _MAIN_BINDING.sub(lambda match: "var".ljust(len(match[1])) + match[2], code, count=1)


def is_commonjs(code: str) -> bool:
    """Whether it uses ``require`` or ``module.exports``.

    Example:
        >>> is_commonjs("module.exports = 1")
        True
    """
    return bool(_COMMONJS.search(code))


def may_be_module(code: str) -> bool:
    """Whether a program that does not parse as a script may do so as a module, or with a top-level ``await``.

    Example:
        >>> may_be_module("const x = await y"), may_be_module("const x =")
        (True, False)
    """
    return bool(_MODULE.search(code))


def is_surely_module(code: str) -> bool:
    """Whether it is no script although it parses as one.

    Example:
        >>> is_surely_module("await (async () => 1)()")
        True
    """
    return bool(_SURELY_MODULE.search(code))
