"""Python source as a task: its value, and errors that speak of the user's lines only."""

from __future__ import annotations

import ast
import inspect
import linecache
import traceback
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final

from runvisor.policies.errors import GuestSyntaxError

_MAX_FRAMES: Final = 50


@dataclass(frozen=True, slots=True)
class Program:
    """Parsed source, with its last expression apart."""

    body: CodeType
    last: CodeType | None
    calls_main: bool
    """The source calls ``main`` itself, so nobody else does."""


def parse(code: str, filename: str) -> Program:
    r"""Compile source.

    Args:
        code: Python source.
        filename: What tracebacks call it.

    Raises:
        GuestSyntaxError: It does not compile; ``where`` is ``line:column``.

    Example:
        >>> run(parse("x = 20\nx * 2", "<task>"), {}, None)
        40
    """
    linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
    try:
        tree = ast.parse(code, filename)
        calls_main = _calls_main(tree)
        last: CodeType | None = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            expression = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
            last = compile(expression, filename, "eval")
        return Program(compile(tree, filename, "exec"), last, calls_main)
    except SyntaxError as error:
        text = (error.text or "").strip()
        raise GuestSyntaxError(
            f"{type(error).__name__}: {error.msg}",
            f"{error.lineno or 1}:{error.offset or 1}",
            f"the line reads: {text}" if text else "",
        ) from None
    except (ValueError, RecursionError, OverflowError) as error:
        raise GuestSyntaxError(f"the source cannot be compiled: {error}", "1:1") from None


def _calls_main(tree: ast.Module) -> bool:
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "main"
        for statement in tree.body
        if not isinstance(statement, definitions)
        for node in ast.walk(statement)
    )


def run(program: Program, namespace: dict[str, Any], inputs: object) -> object:
    """Run a program and return its value.

    The value is that of ``main(inputs)`` if the source defines ``main`` and
    does not call it itself, else that of its last expression, else None.

    Args:
        program: From `parse`.
        namespace: Its globals; ``inputs`` is added.
        inputs: What ``inputs`` is.
    """
    namespace["inputs"] = inputs
    exec(program.body, namespace)
    value = eval(program.last, namespace) if program.last is not None else None
    main = namespace.get("main")
    if inspect.isfunction(main) and not program.calls_main:
        parameters = inspect.signature(main).parameters
        value = main(inputs) if parameters else main()
    if inspect.iscoroutine(value):
        import asyncio

        value = asyncio.run(value)
    return value


def describe(error: BaseException, filename: str) -> dict[str, str]:
    """Say what a guest's exception was: its last line, its place, and the user's frames.

    Args:
        error: What the guest raised; even its ``__str__`` may be hostile.
        filename: The file whose frames are the user's.
    """
    kind = type(error).__name__
    try:
        summary = traceback.TracebackException.from_exception(error, limit=-_MAX_FRAMES, compact=True)
        for part in _chain(summary):
            own = [frame for frame in part.stack if frame.filename == filename]
            part.stack = traceback.StackSummary.from_list(own)
        where = f"line {summary.stack[-1].lineno}" if summary.stack else ""
        return {"what": f"{kind}: {error}", "where": where, "traceback": "".join(summary.format())}
    except BaseException:
        return {"what": f"{kind} (its message cannot be shown)", "where": "", "traceback": ""}


def _chain(summary: traceback.TracebackException) -> list[traceback.TracebackException]:
    parts: list[traceback.TracebackException] = []
    pending: list[traceback.TracebackException | None] = [summary]
    while pending:
        part = pending.pop()
        if part is not None and part not in parts:
            parts.append(part)
            pending += [part.__cause__, part.__context__]
    return parts
