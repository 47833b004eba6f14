"""Which names of a function are its own, and which of them may be read before they have a value."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field


@dataclass(slots=True)
class Scope:
    """The names of one function.

    Comprehensions have names of their own and are walked apart.
    """

    parameters: tuple[str, ...]
    locals: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)
    """Locals that some read may find without a value."""
    globals: set[str] = field(default_factory=set)
    """Names that are read and not assigned."""


def scope_of(function: ast.FunctionDef) -> Scope:
    r"""Find the names of a function.

    Example:
        >>> tree = ast.parse("def f(n):\n for i in range(n): pass\n return i + K")
        >>> scope = scope_of(tree.body[0])
        >>> sorted(scope.locals), sorted(scope.unsure), sorted(scope.globals)
        (['i', 'n'], ['i'], ['K', 'range'])
    """
    parameters = tuple(argument.arg for argument in function.args.args)
    scope = Scope(parameters, set(parameters))
    inner: set[int] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.ListComp | ast.GeneratorExp):
            inner |= {id(name) for part in node.generators for name in ast.walk(part.target)}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) and id(node) not in inner:
            scope.locals.add(node.id)
    _Flow(scope).block(function.body, frozenset(parameters))
    return scope


class _Flow:
    """Follows which locals surely have a value; a branch that leaves is taken to have them all."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._all = frozenset(scope.locals)

    def block(self, body: list[ast.stmt], known: frozenset[str]) -> frozenset[str]:
        for statement in body:
            known = self._statement(statement, known)
        return known

    def _statement(self, node: ast.stmt, known: frozenset[str]) -> frozenset[str]:
        if isinstance(node, ast.If):
            self._read(node.test, known)
            return self.block(node.body, known) & self.block(node.orelse, known)
        if isinstance(node, ast.While):
            self._read(node.test, known)
            self.block(node.body, known)
            self.block(node.orelse, known)
            return known
        if isinstance(node, ast.For):
            self._read(node.iter, known)
            self.block(node.body, known | _names(node.target))
            self.block(node.orelse, known)
            return known
        if isinstance(node, ast.Return | ast.Raise | ast.Break | ast.Continue):
            self._read(node, known)
            return self._all
        self._read(node, known)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and node.target.id not in known:
            self._scope.unsure.add(node.target.id)
        return known | _names(node)

    def _read(self, node: ast.AST, known: frozenset[str]) -> None:
        if isinstance(node, ast.ListComp | ast.GeneratorExp):
            for part in node.generators:
                self._read(part.iter, known)
                known = known | {name.id for name in ast.walk(part.target) if isinstance(name, ast.Name)}
                for test in part.ifs:
                    self._read(test, known)
            self._read(node.elt, known)
            return
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in known:
            own = node.id in self._scope.locals
            (self._scope.unsure if own else self._scope.globals).add(node.id)
        for child in ast.iter_child_nodes(node):
            self._read(child, known)


def _names(node: ast.AST) -> frozenset[str]:
    """Return the names that a statement or target gives a value."""
    found: set[str] = set()
    pending = [node]
    while pending:
        part = pending.pop()
        if isinstance(part, ast.ListComp | ast.GeneratorExp):
            continue
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            found.add(part.id)
        pending += ast.iter_child_nodes(part)
    return frozenset(found)
