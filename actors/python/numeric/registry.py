"""The functions of a program that may be compiled, known by their code objects."""

from __future__ import annotations

import ast
from types import CodeType, FunctionType
from typing import Any

from runvisor.policies.numeric.estimate import statements
from runvisor.policies.numeric.scope import scope_of


class Registry:
    """Trees by key; a key is the name and a number, since a session may define a name again."""

    def __init__(self) -> None:
        self.trees: dict[str, ast.FunctionDef] = {}
        self._codes: dict[int, tuple[CodeType, str]] = {}
        self._free: dict[str, tuple[str, ...]] = {}
        self._callees: dict[str, dict[str, float]] = {}

    def add(self, tree: ast.FunctionDef) -> str:
        """Keep a function's tree; return its key."""
        key = f"{tree.name}#{len(self.trees)}"
        self.trees[key] = tree
        return key

    def bind(self, key: str, code: CodeType) -> None:
        """Note that a code object is a function's."""
        self._codes[id(code)] = (code, key)

    def key_of(self, function: FunctionType) -> str | None:
        """Return which function this is, if it is one of these."""
        found = self._codes.get(id(function.__code__))
        return found[1] if found is not None else None

    def free_names(self, key: str) -> tuple[str, ...]:
        """Return the global names that a function reads."""
        if key not in self._free:
            self._free[key] = tuple(sorted(scope_of(self.trees[key]).globals))
        return self._free[key]

    def callees(self, key: str) -> dict[str, float]:
        """Return the functions that one calls, by name, with what a call of each takes, in statements."""
        if key not in self._callees:
            free = self.free_names(key)
            trees = {tree.name: tree for tree in self.trees.values() if tree.name in free}
            self._callees[key] = {name: statements(tree, {}, {}) for name, tree in trees.items()}
        return self._callees[key]

    def size_of(self, key: str, arguments: tuple[Any, ...], namespace: dict[str, Any]) -> dict[str, float]:
        """Return the numbers and lengths that a call's work depends on, by name."""
        sizes: dict[str, float] = {}
        for name in self.free_names(key):
            _measure(sizes, name, namespace.get(name))
        for parameter, value in zip(self.trees[key].args.args, arguments, strict=True):
            _measure(sizes, parameter.arg, value)
        return sizes


def _measure(sizes: dict[str, float], name: str, value: object) -> None:
    if type(value) in (list, str, bytes):
        sizes[name] = float(len(value))  # type: ignore[arg-type]  # all three have a length
    elif (type(value) is int and value.bit_length() < 64) or (type(value) is float and abs(value) < 1e12):
        sizes[name] = float(value)
