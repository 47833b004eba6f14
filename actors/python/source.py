"""Python source as a task or a cell: parsed once, run in a namespace, its value found."""

from __future__ import annotations

import ast
import inspect
import linecache
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final

from runvisor.actors.python.coroutines import Coroutines
from runvisor.policies.errors import GuestSyntaxError

_FLAGS: Final = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_MAGIC: Final = ("%", "!", "?")
_AT_MARGIN: Final = re.compile(r"[\w\"'(\[{+~-]")


@dataclass(frozen=True, slots=True)
class Program:
    """Parsed source, with its last expression apart."""

    body: CodeType | None
    last: CodeType | None
    calls_main: bool
    """The source calls ``main`` itself, so nobody else does."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program came to."""

    value: Any
    is_last_expression: bool
    """The value is that of the last expression: what a notebook would show."""


Compiler = Callable[[ast.Module, str, int], CodeType]


def compile_plainly(tree: ast.Module, filename: str, flags: int) -> CodeType:
    """Compile a module as it is."""
    code: CodeType = compile(tree, filename, "exec", flags, dont_inherit=True)
    return code


def parse(code: str, filename: str, compile_body: Compiler = compile_plainly) -> Program:
    r"""Compile source; ``await`` may stand at its top level.

    Args:
        code: Python source.
        filename: What tracebacks call it.
        compile_body: Compiles the module but for its last expression.

    Raises:
        GuestSyntaxError: It does not compile; ``where`` is ``line:column``.

    Example:
        >>> run(parse("x = 20\nx * 2", "<task>"), {}, None, Coroutines()).value
        40
    """
    linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
    if compile_body is compile_plainly and (program := _parse_halves(code, filename)) is not None:
        return program
    try:
        # Without dont_inherit, the source would get this module's own __future__ imports.
        tree: Any = compile(code, filename, "exec", _FLAGS | ast.PyCF_ONLY_AST, dont_inherit=True)
        calls_main = "main" in code and _calls_main(tree)
        body: CodeType | None = None
        last: CodeType | None = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            expression = ast.Expression(tree.body.pop().value)
            last = compile(expression, filename, "eval", _FLAGS | _future_flags(tree), dont_inherit=True)
        if tree.body:
            body = compile_body(tree, filename, _FLAGS)
        return Program(body, last, calls_main)
    except SyntaxError as error:
        raise _syntax_error(error, code) from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise GuestSyntaxError(f"the source cannot be compiled: {error}", "1:1") from None


def _parse_halves(code: str, filename: str) -> Program | None:
    """Compile the last line and what stands before it, each by itself; None if that might mean something else.

    It takes half as long as a tree. A line that begins at the margin goes on with
    nothing when what stands before it is whole; most source ends with such a line.
    """
    if "main" in code or "__future__" in code or "\r" in code:
        return None
    before, newline, last = code.rstrip(" \n").rpartition("\n")
    if not _AT_MARGIN.match(last):
        return None
    padding = "\n" * (before.count("\n") + len(newline))  # for the numbers of lines in tracebacks
    try:
        value = compile(padding + last, filename, "eval", _FLAGS, dont_inherit=True)
        body = compile(before, filename, "exec", _FLAGS, dont_inherit=True) if before else None
    except (SyntaxError, ValueError, RecursionError, OverflowError, MemoryError):  # said of the whole, where it is so
        return None
    return Program(body, value, calls_main=False)


def _future_flags(tree: ast.Module) -> int:
    """Return the compiler flags of the source's own ``from __future__`` imports."""
    import __future__

    flags = 0
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            for alias in statement.names:
                flags |= getattr(getattr(__future__, alias.name, None), "compiler_flag", 0)
    return flags


def _syntax_error(error: SyntaxError, code: str) -> GuestSyntaxError:
    text = (error.text or "").strip()
    remedy = f"the line reads: {text}" if text else ""
    lines = code.splitlines()
    number = error.lineno or 1
    line = lines[number - 1].strip() if 0 < number <= len(lines) else text
    if line.startswith(_MAGIC) or line.endswith("?"):
        remedy = f"IPython's magics and shell commands are not Python; remove the line: {line[:200]}"
    shown = "".join(traceback.format_exception_only(error))
    return GuestSyntaxError(
        f"{type(error).__name__}: {error.msg}", f"{number}:{error.offset or 1}", remedy, {"traceback": shown}
    )


def _calls_main(tree: ast.Module) -> bool:
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "main"
        for statement in tree.body
        if not isinstance(statement, definitions)
        for node in ast.walk(statement)
    )


def run(program: Program, namespace: dict[str, Any], inputs: object, coroutines: Coroutines) -> Outcome:
    """Run a task and return its value.

    The value is that of ``main(inputs)`` if the source defines ``main`` and
    does not call it itself, else that of its last expression, else None.

    Args:
        program: From `parse`.
        namespace: Its globals; ``inputs`` is added.
        inputs: What ``inputs`` is.
        coroutines: Runs what is awaited.
    """
    value = run_cell(program, namespace, inputs, coroutines)
    main = namespace.get("main")
    if inspect.isfunction(main) and not program.calls_main:
        parameters = inspect.signature(main).parameters
        value = main(inputs) if parameters else main()
        if inspect.iscoroutine(value):
            value = coroutines.run(value)
        return Outcome(value, is_last_expression=False)
    return Outcome(value, is_last_expression=True)


def run_cell(program: Program, namespace: dict[str, Any], inputs: object, coroutines: Coroutines) -> Any:
    """Run a cell as a notebook does, and return the value of its last expression, or None.

    Args:
        program: From `parse`.
        namespace: Its globals, those of the cells before it; ``inputs`` is set.
        inputs: What ``inputs`` is.
        coroutines: Runs what is awaited.
    """
    namespace["inputs"] = inputs
    parts = [code for code in (program.body, program.last) if code is not None]
    value: Any = None
    if any(code.co_flags & inspect.CO_COROUTINE for code in parts):
        value = coroutines.run(_awaited(parts, namespace))
    else:
        for code in parts:
            value = eval(code, namespace)
    if program.last is None:
        return None
    return coroutines.run(value) if inspect.iscoroutine(value) else value  # ``main(5)``, of a main that is async


async def _awaited(parts: list[CodeType], namespace: dict[str, Any]) -> Any:
    """Run all parts inside the loop if one of them awaits: the others may start tasks there."""
    value: Any = None
    for code in parts:
        value = eval(code, namespace)
        if code.co_flags & inspect.CO_COROUTINE:
            value = await value
    return value
