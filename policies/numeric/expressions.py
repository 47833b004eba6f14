"""Expressions: names, operators, conditions, subscripts; calls and loops inside them are elsewhere."""

from __future__ import annotations

import ast

from runvisor.policies.numeric import arithmetic, calls, lists, loops
from runvisor.policies.numeric.frame import Frame, Value
from runvisor.policies.numeric.types import (
    BOOL,
    CHAR,
    INT,
    NONE,
    UNKNOWN,
    ListOf,
    Unsupported,
)

_MATH_CONSTANTS = {
    "pi": 3.141592653589793,
    "e": 2.718281828459045,
    "tau": 6.283185307179586,
    "inf": float("inf"),
    "nan": float("nan"),
}


def lower(f: Frame, node: ast.expr) -> Value:
    """Lower an expression.

    Raises:
        Unsupported: It does something that is not compiled.
    """
    folded = _fold(node)
    if folded is not None:
        return arithmetic.integer(folded)
    match node:
        case ast.Constant():
            return _constant(node.value)
        case ast.Name():
            return _name(f, node.id)
        case ast.BinOp():
            left, right = f.value(node.left), f.value(node.right)
            if isinstance(left.type, ListOf) or isinstance(right.type, ListOf):
                return lists.joined(f, node.op, left, right)
            return arithmetic.binary(f, node.op, left, right)
        case ast.UnaryOp():
            return _unary(f, node)
        case ast.Compare():
            return _compare(f, node)
        case ast.BoolOp():
            return _both_or_either(f, node)
        case ast.IfExp():
            test = f.truth(f.value(node.test))
            return arithmetic.choice(f, test, f.value(node.body), f.value(node.orelse))
        case ast.Subscript():
            sequence = f.value(node.value)
            if isinstance(node.slice, ast.Slice):
                return lists.part(f, sequence, node.slice)
            index = f.value(node.slice)
            if sequence.type is UNKNOWN or index.type is UNKNOWN:
                return Value("(unreachable)", lists.item_of(sequence))
            return lists.load(f, sequence, *lists.place(f, sequence, index))
        case ast.Attribute(value=ast.Name(id=module)) if f.meaning(module) == "math":
            if node.attr not in _MATH_CONSTANTS:
                raise Unsupported(f"math.{node.attr} as a value")
            return arithmetic.real(_MATH_CONSTANTS[node.attr])
        case ast.List():
            return lists.display(f, node)
        case ast.ListComp():
            return lists.comprehension(f, node, loops.nest)
        case ast.Call():
            return calls.lower(f, node)
    raise Unsupported(f"the expression {type(node).__name__}")


def _fold(node: ast.expr) -> int | None:
    """Compute what is made of integer constants alone, however large on the way."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _fold(node.operand)
        return None if inner is None else -inner
    if not isinstance(node, ast.BinOp):
        return None
    left = _fold(node.left)
    right = _fold(node.right) if left is not None else None
    if left is None or right is None:
        return None
    match node.op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult() if max(left.bit_length(), right.bit_length()) < 256:
            return left * right
        case ast.Pow() if 0 <= right < 256 and left.bit_length() < 64:
            return int(left**right)
        case ast.LShift() if 0 <= right < 256:
            return left << right
        case ast.FloorDiv() if right:
            return left // right
    return None


def _constant(value: object) -> Value:
    if value is None:
        return Value("", NONE)
    if isinstance(value, bool):
        return Value(f"(i32.const {int(value)})", BOOL)
    if isinstance(value, float):
        return arithmetic.real(value)
    if isinstance(value, str) and len(value) == 1:
        return Value(f"(i32.const {ord(value)})", CHAR)
    raise Unsupported(f"a constant {type(value).__name__}")


def _name(f: Frame, name: str) -> Value:
    inner = f.inner(name)
    if inner is not None:
        return inner
    if name in f.scope.locals:
        return f.read(name)
    kind = f.program.globals.get(name)
    if kind is None:
        raise Unsupported(f"the name {name!r} as a value")
    slot = list(f.program.globals).index(name)
    return Value(f"(global.get $g{slot})", kind)


def _unary(f: Frame, node: ast.UnaryOp) -> Value:
    value = f.value(node.operand)
    if isinstance(node.op, ast.Not):
        return Value(f"(i32.eqz {f.truth(value)})", BOOL)
    if isinstance(node.op, ast.USub):
        return arithmetic.negative(f, value)
    if isinstance(node.op, ast.Invert):
        return arithmetic.inverted(f, value)
    return value if value.type is not BOOL else f.coerce(value, INT)


def _compare(f: Frame, node: ast.Compare) -> Value:
    left = f.value(node.left)
    code, closing = "", 0
    for i, (op, right_node) in enumerate(zip(node.ops, node.comparators, strict=True)):
        right, ready = f.value(right_node), ""
        last = i == len(node.ops) - 1
        if not last:  # the middle operand is computed once, and after the left one
            first, left = f.held(left)
            second, right = f.held(right)
            ready = f"{first} {second}"
        if isinstance(op, ast.In | ast.NotIn):
            test = lists.contains(f, right, left)
            test = f"(i32.eqz {test})" if isinstance(op, ast.NotIn) else test
        else:
            test = arithmetic.compare(f, op, left, right)
        if not last:
            test = f"(block (result i32) {ready} {test})"
            code += f"(if (result i32) {test} (then "
            closing += 1
        else:
            code += test
        left = right
    return Value(code + ") (else (i32.const 0)))" * closing, BOOL)


def _both_or_either(f: Frame, node: ast.BoolOp) -> Value:
    values = [f.value(part) for part in node.values]
    conjunction = isinstance(node.op, ast.And)
    result = values[-1]
    for value in reversed(values[:-1]):
        if value.type is BOOL and result.type is BOOL:
            then, other = (result.code, "(i32.const 0)") if conjunction else ("(i32.const 1)", result.code)
            result = Value(f"(if (result i32) {value.code} (then {then}) (else {other}))", BOOL)
            continue
        ready, held = f.held(value)
        test = f.truth(held)
        result = (
            arithmetic.choice(f, test, result, held, ready)
            if conjunction
            else arithmetic.choice(f, test, held, result, ready)
        )
    return result


def condition(f: Frame, node: ast.expr) -> str:
    """Lower an expression of which only the truth is asked, as 0 or 1."""
    if isinstance(node, ast.BoolOp):
        parts = [condition(f, part) for part in node.values]
        code = parts[-1]
        for part in reversed(parts[:-1]):
            then, other = (code, "(i32.const 0)") if isinstance(node.op, ast.And) else ("(i32.const 1)", code)
            code = f"(if (result i32) {part} (then {then}) (else {other}))"
        return code
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return f"(i32.eqz {condition(f, node.operand)})"
    return f.truth(f.value(node))
