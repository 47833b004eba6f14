"""Makes the numeric functions of a program accelerated: the entry of this folder.

Each eligible function gets a head::

    def f(a, b):
        "its docstring"
        if HANDLE.enter(a, b):
            return HANDLE.take()
        HANDLE.begin()
        try:
            its body
        finally:
            HANDLE.leave()

``HANDLE`` is a constant in the code object, so that no name is added anywhere.
The function stays a function, with its own frame, names, defaults and line
numbers; on a fallback its body simply goes on, in the frame it was called in.
"""

from __future__ import annotations

import ast
import copy
import warnings
from types import CodeType
from typing import Any, Final

from runvisor.actors.python.numeric import engine
from runvisor.actors.python.numeric.engine import Engine
from runvisor.actors.python.numeric.handle import Handle, Report, When
from runvisor.actors.python.numeric.registry import Registry
from runvisor.policies.numeric.eligibility import objection, repeats

_MARK: Final = "\0numeric:"
_HEAD: Final = """
if {handle}.enter({names}):
    return {handle}.take()
{handle}.begin()
try:
    pass
finally:
    {handle}.leave()
"""


_REHEARSAL: Final = """
def f(a, n):
    t = 0
    for i in range(n):
        a[i] += i % 3
        t += a[i]
    return t
f([1, 2, 3], 3)
"""


def preload() -> str:
    """Make the engine and walk the whole way once, in the zygote, so that children begin warm.

    Returns:
        Why there is no engine, or nothing.
    """
    reason = engine.preload()
    if not reason:
        namespace: dict[str, Any] = {}
        accelerator = Accelerator(engine.process_engine(), When(ahead_s=0.0))
        exec(accelerator.compile(ast.parse(_REHEARSAL), "<rehearsal>", namespace), namespace)
    return reason


class Accelerator:
    r"""The accelerated functions of one task or session.

    Args:
        engine: Where compiled code runs; None leaves every program as it is.
        when: When functions are compiled.

    Attributes:
        report: What was compiled and how calls went.

    Example:
        >>> accelerator = Accelerator(Engine())
        >>> source = "def f(n):\n    s = 0\n    for i in range(n):\n        s += i * i % 7\n    return s"
        >>> namespace = {}
        >>> exec(accelerator.compile(ast.parse(source), "<task>", namespace), namespace)
        >>> namespace["f"](1_000_000)
        1999998
        >>> accelerator.report.document()["functions_compiled"]
        ['f']
    """

    def __init__(self, engine: Engine | None, when: When | None = None) -> None:
        self._engine = engine
        self._when = when or When()
        self._registry = Registry()
        self.report = Report()

    def compile(self, tree: ast.Module, filename: str, namespace: dict[str, Any], flags: int = 0) -> CodeType:
        """Compile a module as the builtin does, with its numeric functions accelerated.

        The tree is not changed. What cannot be accelerated runs as ever.

        Args:
            tree: The module; of a session, one cell.
            filename: What tracebacks call it.
            namespace: The globals that the code will run in.
            flags: The builtin's, as ``ast.PyCF_ALLOW_TOP_LEVEL_AWAIT``.

        Raises:
            SyntaxError: As the builtin.
        """
        plain: CodeType = compile(tree, filename, "exec", flags, dont_inherit=True)
        eligible = [node for node in tree.body if isinstance(node, ast.FunctionDef) and objection(node) is None]
        if self._engine is None or not eligible:
            return plain
        originals = {(code.co_name, code.co_firstlineno): code for code in _codes(plain)}
        handles: dict[str, Handle] = {}
        marked: dict[int, ast.stmt] = {}
        for function in eligible:
            original = originals.get((function.name, function.lineno))
            if original is None:
                continue
            key = self._registry.add(function)
            if repeats(function):
                handle = Handle(key, self._registry, namespace, self._engine, self.report, original, self._when)
                handles[_MARK + key] = handle
                marked[id(function)] = _with_head(function, _MARK + key)
            else:
                self._registry.bind(key, original)
        shell = copy.copy(tree)
        shell.body = [marked.get(id(node), node) for node in tree.body]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said once already
            code: CodeType = compile(shell, filename, "exec", flags, dont_inherit=True)
        constants = tuple(self._armed(constant, handles) for constant in code.co_consts)
        # The helpers' code objects are those of this second compilation.
        for constant in constants:
            if isinstance(constant, CodeType):
                self._bind(constant, eligible)
        return code.replace(co_consts=constants)

    def _armed(self, constant: object, handles: dict[str, Handle]) -> object:
        if not isinstance(constant, CodeType):
            return constant
        marks = [part for part in constant.co_consts if isinstance(part, str) and part in handles]
        if not marks:
            return constant
        return constant.replace(
            co_consts=tuple(
                handles[part] if isinstance(part, str) and part in handles else part for part in constant.co_consts
            )
        )

    def _bind(self, code: CodeType, eligible: list[ast.FunctionDef]) -> None:
        for key, tree in self._registry.trees.items():
            if tree.name == code.co_name and tree.lineno == code.co_firstlineno and tree in eligible:
                self._registry.bind(key, code)


def _codes(module: CodeType) -> list[CodeType]:
    return [constant for constant in module.co_consts if isinstance(constant, CodeType)]


def _with_head(function: ast.FunctionDef, mark: str) -> ast.FunctionDef:
    body = function.body
    has_docstring = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and len(body) > 1
    names = ", ".join(argument.arg for argument in function.args.args)
    head = ast.parse(_HEAD.format(handle=repr(mark), names=names))
    for node in ast.walk(head):
        if isinstance(node, ast.expr | ast.stmt):
            node.lineno = node.end_lineno = function.lineno
            node.col_offset = node.end_col_offset = function.col_offset
    guarded = head.body[-1]
    assert isinstance(guarded, ast.Try)
    guarded.body = body[1:] if has_docstring else body
    made = copy.copy(function)
    made.body = [*body[:1], *head.body] if has_docstring else list(head.body)
    return made
