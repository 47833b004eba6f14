"""One function on its way to WebAssembly: its names, temporaries and places to give up.

Lowering runs over a program again and again until no type becomes wider; the
text of the last round is the right one. So one walk finds types and writes code.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from runvisor.policies.numeric import wat
from runvisor.policies.numeric.scope import Scope, scope_of
from runvisor.policies.numeric.types import (
    BOOL,
    FLOAT,
    INT,
    NUMBER,
    UNKNOWN,
    Cell,
    Type,
    Unsupported,
    join,
    same,
)

ANY_BITS: Final = 64
_EXACT_BITS: Final = 53


@dataclass(slots=True)
class Value:
    """An expression in WebAssembly."""

    code: str
    """Leaves one value of the type on the stack."""
    type: Type
    tag: str = ""
    """For a `NUMBER`: code, to be run after ``code``, that says 1 for an integer."""
    bits: int = ANY_BITS
    """For an `INT`: its magnitude is below two to this power."""
    constant: int | None = None


@dataclass(slots=True)
class Types:
    """What has been found out about one function, from round to round."""

    variables: dict[str, Type] = field(default_factory=dict)
    returns: Type = UNKNOWN
    cells: dict[tuple[int, str], Cell] = field(default_factory=dict)
    walked: dict[int, ast.List] = field(default_factory=dict)


@dataclass(slots=True)
class Program:
    """What the functions of one compilation share."""

    functions: dict[str, ast.FunctionDef]
    names: Mapping[str, str]
    """What each global name is: a type, or ``math``, ``math:sqrt``, ``function:f``, ``builtin:len``."""
    globals: dict[str, Type]
    compensated_sums: bool
    """``sum`` of floats keeps what rounding loses, as CPython does from 3.12 on."""
    types: dict[str, Types] = field(default_factory=dict)
    calls: set[tuple[str, str]] = field(default_factory=set)
    changed: bool = False
    recursive: bool = False

    def widen(self, into: dict[str, Type], name: str, kind: Type) -> None:
        """Let a name also be of a type."""
        joined, changed = join(into.get(name, UNKNOWN), kind)
        into[name] = joined
        self.changed |= changed

    def widen_return(self, name: str, kind: Type) -> None:
        """Let a function also return a type."""
        types = self.types[name]
        types.returns, changed = join(types.returns, kind)
        self.changed |= changed


class Frame:
    """One function during one round.

    Args:
        program: What it is part of.
        name: The function.
        value: Lowers an expression; given from outside because expressions need frames.
    """

    def __init__(self, program: Program, name: str, value: Callable[[Frame, ast.expr], Value]) -> None:
        self.program = program
        self.name = name
        self.node = program.functions[name]
        self.scope: Scope = scope_of(self.node)
        self.types = program.types.setdefault(name, Types())
        self.locals: dict[str, str] = {}
        self.reasons: set[int] = set()
        self.loops: list[tuple[str, str]] = []
        self.depth = 0
        self.deepest = 0
        self.has_math: list[int] = []
        self._inner: dict[str, Value] = {}
        self._numbers = 0
        self._slots = {local: f"$v{number}" for number, local in enumerate(sorted(self.scope.locals))}
        self._value = value

    def value(self, node: ast.expr) -> Value:
        """Lower an expression."""
        return self._value(self, node)

    def fresh(self) -> int:
        """Return a number that this function has not used."""
        self._numbers += 1
        return self._numbers

    def temp(self, wasm: str) -> str:
        """Return a new local."""
        name = f"$t{self.fresh()}"
        self.locals[name] = wasm
        return name

    def give_up(self, reason: int) -> str:
        """Return the label to branch to when the call cannot go on."""
        self.reasons.add(reason)
        return f"$stop{reason}"

    def cell(self, node: ast.AST, role: str = "") -> Cell:
        """Return the element type of the list that a place in the source makes."""
        return self.types.cells.setdefault((id(node), role), Cell())

    def meaning(self, name: str) -> str:
        """Return what a global name is, as `Program.names` says it; nothing if a local one hides it."""
        hidden = name in self.scope.locals or name in self._inner
        return "" if hidden else self.program.names.get(name, "")

    def as_list(self, node: ast.Tuple) -> ast.List:
        """Return a tuple that is only walked as a list; the same one in every round."""
        return self.types.walked.setdefault(id(node), ast.List(node.elts, node.ctx))

    def variable(self, name: str) -> str:
        """Return the local that holds a name."""
        kind = self.types.variables.get(name, UNKNOWN)
        local = self._slots[name]
        self.locals[local] = kind.wasm or "i32"
        if kind is NUMBER:
            self.locals[local + "t"] = "i32"
        return local

    def bind(self, name: str, value: Value | None) -> Value | None:
        """Give a comprehension's own name a value, or take it away; return the one before."""
        before = self._inner.pop(name, None)
        if value is not None:
            self._inner[name] = value
        return before

    def inner(self, name: str) -> Value | None:
        """Return the value of a comprehension's own name."""
        return self._inner.get(name)

    def held(self, value: Value) -> tuple[str, Value]:
        """Keep a value in a temporary: the code that does so, and the value as it can be read often."""
        if not value.type.wasm:
            raise Unsupported(f"{value.type.name} as a value")
        local = self.temp(value.type.wasm)
        code, tag = f"(local.set {local} {value.code})", ""
        if value.type is NUMBER:
            mark = self.temp("i32")
            code += f" (local.set {mark} {value.tag})"
            tag = f"(local.get {mark})"
        return code, Value(f"(local.get {local})", value.type, tag, value.bits, value.constant)

    def assign(self, name: str, value: Value) -> str:
        """Give a local of the function a value."""
        if not value.type.wasm:
            raise Unsupported(f"{value.type.name} as a value")
        self.program.widen(self.types.variables, name, value.type)
        value = self.coerce(value, self.types.variables[name])
        local = self.variable(name)
        code = f"(local.set {local} {value.code})"
        if value.type is NUMBER:
            code += f" (local.set {local}t {value.tag})"
        if name in self.scope.unsure:
            self.locals[local + "d"] = "i32"
            code += f" (local.set {local}d (i32.const 1))"
        return code

    def read(self, name: str) -> Value:
        """Read a local of the function."""
        local = self.variable(name)
        kind = self.types.variables.get(name, UNKNOWN)
        code = f"(local.get {local})"
        if name in self.scope.unsure:
            self.locals[local + "d"] = "i32"
            missing = f"(br_if {self.give_up(wat.UNBOUND)} (i32.eqz (local.get {local}d)))"
            code = f"(block (result {kind.wasm}) {missing} {code})"
        if kind is UNKNOWN:
            return Value("(unreachable)", UNKNOWN)
        return Value(code, kind, f"(local.get {local}t)" if kind is NUMBER else "")

    def coerce(self, value: Value, kind: Type) -> Value:
        """Convert a value to a type that its own was joined into, or that arithmetic needs."""
        if same(value.type, kind) or value.type is UNKNOWN:
            tag = value.tag or "(i32.const 0)" if kind is NUMBER else ""
            return Value(value.code, kind, tag, value.bits, value.constant)
        if value.type is BOOL and kind is INT:
            return Value(f"(i64.extend_i32_u {value.code})", INT, bits=1)
        if value.type in (INT, BOOL) and kind in (FLOAT, NUMBER):
            value = self.coerce(value, INT)
            if value.constant is not None and value.bits <= _EXACT_BITS:
                return Value(f"(f64.const {value.constant})", kind, "(i32.const 1)")
            code = value.code if kind is FLOAT else self.exact(value)
            return Value(f"(f64.convert_i64_s {code})", kind, "(i32.const 1)")
        if value.type is FLOAT and kind is NUMBER:
            return Value(value.code, NUMBER, "(i32.const 0)")
        if value.type is NUMBER and kind is FLOAT:
            return Value(value.code, FLOAT)
        if value.type is NUMBER and kind is INT:
            held, again = self.held(value)
            test = f"(br_if {self.give_up(wat.KIND)} (i32.eqz {again.tag}))"
            return Value(
                f"(block (result i64) {held} {test} (i64.trunc_f64_s {again.code}))", INT, bits=_EXACT_BITS + 1
            )
        if value.type is FLOAT and kind is INT:  # a TypeError, if it is ever reached
            return Value(f"(block (result i64) (drop {value.code}) (br {self.give_up(wat.KIND)}))", INT)
        raise Unsupported(f"{value.type.name} where {kind.name} is needed")

    def exact(self, value: Value) -> str:
        """Return the code of an integer that a float holds exactly, else the call stops."""
        if value.bits <= _EXACT_BITS:
            return value.code
        local = self.temp("i64")
        bound = 1 << _EXACT_BITS
        outside = f"(i64.gt_u (i64.add (local.get {local}) (i64.const {bound})) (i64.const {2 * bound}))"
        test = f"(br_if {self.give_up(wat.PRECISION)} {outside})"
        return f"(block (result i64) (local.set {local} {value.code}) {test} (local.get {local}))"

    def truth(self, value: Value) -> str:
        """Return code for whether a value is true, as 0 or 1."""
        if value.type is BOOL:
            return value.code
        if value.type is INT:
            return f"(i64.ne {value.code} (i64.const 0))"
        if value.type in (FLOAT, NUMBER):
            return f"(f64.ne {value.code} (f64.const 0))"
        if value.type is UNKNOWN:
            return f"(i64.eqz {value.code})"
        if value.type.wasm == "i32" and value.type.name != "char":
            return f"(i32.ne (i32.load offset=4 {value.code}) (i32.const 0))"
        raise Unsupported(f"the truth of {value.type.name}")
