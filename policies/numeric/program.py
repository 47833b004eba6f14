"""From functions and the types of a call to one WebAssembly module."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from runvisor.policies.numeric import statements, wat
from runvisor.policies.numeric.calls import results
from runvisor.policies.numeric.frame import Program, Types
from runvisor.policies.numeric.types import INT, NONE, UNKNOWN, ListOf, TupleOf, Type, Unsupported, parse

_MAX_ROUNDS: Final = 24
_MAX_DEPTH: Final = 6


@dataclass(frozen=True, slots=True)
class Shape:
    """How a value lies in memory, for the host."""

    kind: str
    """``int``, ``float``, ``bool``, ``number``, ``char``, ``str``, ``bytes``, ``None``, ``list`` or ``tuple``."""
    items: tuple[Shape, ...] = ()
    """Of a list the one of its elements, of a tuple one for each."""
    mutated: bool = False
    """Lists only: the call may have changed it."""

    @property
    def layout(self) -> str:
        """Its form apart from who changes it: what one object must have wherever it turns up."""
        return f"{self.kind}[{','.join(item.layout for item in self.items)}]" if self.items else self.kind


@dataclass(frozen=True, slots=True)
class Compiled:
    """A module in text form and how to call it.

    It exports ``run``, which takes where free memory begins, how deep calls may
    go, the parameters and then the globals; a ``number`` is two values.
    """

    wat: str
    parameters: tuple[Shape, ...]
    globals: tuple[tuple[str, Shape], ...]
    """Global names whose values go in with each call."""
    result: Shape
    recursive: bool
    functions: tuple[str, ...]
    """All functions in it, the entry first."""


def compile_program(
    functions: Mapping[str, ast.FunctionDef],
    entry: str,
    arguments: Sequence[str],
    names: Mapping[str, str],
    *,
    compensated_sums: bool = False,
) -> Compiled:
    r"""Compile a function, and the functions that it calls, for arguments of given types.

    Args:
        functions: Functions that may be compiled.
        entry: The one to call.
        arguments: The type of each argument, as ``int``, ``float``, ``bool``, ``str``,
            ``bytes``, ``number`` or ``list[...]``; ``list[unknown]`` for an empty list.
        names: What each global name is: a type as above, ``math`` for the module,
            ``math:sqrt`` for one of its functions, ``function:f``, or ``builtin:len``.
        compensated_sums: The interpreter's ``sum`` keeps what rounding loses (3.12 on).

    Raises:
        Unsupported: A function does something that is not compiled, and what.

    Example:
        >>> tree = ast.parse("def f(n):\n    return n * 2")
        >>> compiled = compile_program({"f": tree.body[0]}, "f", ["int"], {})
        >>> compiled.result.kind, compiled.functions
        ('int', ('f',))
    """
    data = {name: parse(kind) for name, kind in names.items() if ":" not in kind and kind not in ("math", "other")}
    program = Program(dict(functions), names, data, compensated_sums)
    first = program.types[entry] = Types()
    parameters = functions[entry].args.args
    if len(parameters) != len(arguments):
        raise Unsupported("another number of arguments")
    for parameter, kind in zip(parameters, arguments, strict=True):
        first.variables[parameter.arg] = parse(kind)
    code = _fixpoint(program)
    while _settle(program):
        code = _fixpoint(program)
    used = tuple(name for number, name in enumerate(data) if f"$g{number})" in "".join(code))
    return Compiled(
        _module(program, code, [first.variables[parameter.arg] for parameter in parameters], first.returns, used),
        tuple(_shape(first.variables[parameter.arg]) for parameter in parameters),
        tuple((name, _shape(data[name])) for name in used),
        _shape(first.returns),
        program.recursive,
        tuple(program.types),
    )


def _fixpoint(program: Program) -> list[str]:
    """Lower all functions until no type becomes wider."""
    for _ in range(_MAX_ROUNDS):
        program.changed = False
        code = [statements.function(program, name) for name in list(program.types)]
        recursive = _has_cycle(program.calls)
        if not program.changed and recursive == program.recursive and len(code) == len(program.types):
            return code
        program.recursive = recursive
    raise Unsupported("types that do not settle")


def _settle(program: Program) -> bool:
    """Call what no value ever reached an integer; return whether there was any."""
    found = False
    for types in program.types.values():
        for name, kind in types.variables.items():
            if kind is UNKNOWN:
                types.variables[name] = INT
                found = True
        if types.returns is UNKNOWN:
            types.returns = INT
            found = True
        for kind in [*types.variables.values(), *map(ListOf, types.cells.values())]:
            found |= _settle_list(kind)
    for kind in program.globals.values():
        found |= _settle_list(kind)
    return found


def _settle_list(kind: Type) -> bool:
    if not isinstance(kind, ListOf):
        return False
    if kind.cell.item is UNKNOWN:
        return kind.cell.widen(INT)
    return _settle_list(kind.cell.item)


def _has_cycle(calls: set[tuple[str, str]]) -> bool:
    reached = set(calls)
    while more := {(a, d) for a, b in reached for c, d in calls if b == c} - reached:
        reached |= more
    return any(a == b for a, b in reached)


def _shape(kind: Type, depth: int = 0) -> Shape:
    if depth > _MAX_DEPTH:
        raise Unsupported("a list in itself")
    if isinstance(kind, ListOf):
        return Shape("list", (_shape(kind.cell.item, depth + 1),), kind.cell.mutated)
    if isinstance(kind, TupleOf):
        return Shape("tuple", tuple(_shape(item, depth + 1) for item in kind.items))
    return Shape(kind.name)


def _module(program: Program, code: list[str], parameters: list[Type], returns: Type, used: tuple[str, ...]) -> str:
    order = list(program.globals)
    globals_ = [(order.index(name), program.globals[name]) for name in used]
    declared = "\n".join(f"(global $g{n} (mut {kind.wasm}) ({kind.wasm}.const 0))" for n, kind in globals_)
    takes = [wasm for kind in parameters for wasm in results(kind)]
    shape = "(param $free i32) (param $deep i32) "
    shape += " ".join(f"(param $p{i} {wasm})" for i, wasm in enumerate(takes))
    shape += " " + " ".join(f"(param $x{n} {kind.wasm})" for n, kind in globals_)
    shape += " " + " ".join(f"(result {wasm})" for wasm in results(returns) if returns is not NONE)
    fill = "(global.set $top (local.get $free)) (global.set $depth (local.get $deep)) "
    fill += " ".join(f"(global.set $g{n} (local.get $x{n}))" for n, _ in globals_)
    pass_on = " ".join(f"(local.get $p{i})" for i in range(len(takes)))
    run = f'(func (export "run") {shape}\n{fill}\n(call $f0 {pass_on}))'
    return f"(module {wat.PRELUDE}\n{declared}\n{run}\n" + "\n".join(code) + ")"
