"""Operators on numbers, with Python's results or none: what would differ ends the call."""

from __future__ import annotations

import ast
from typing import Final

from runvisor.policies.numeric import wat
from runvisor.policies.numeric.frame import ANY_BITS, Frame, Value
from runvisor.policies.numeric.types import BOOL, CHAR, FLOAT, INT, NUMBER, NUMERIC, UNKNOWN, Type, Unsupported, join

_SAFE_BITS: Final = 63
_NOTHING: Final = Value("(unreachable)", UNKNOWN)
_MARK: Final = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul"}
_BITWISE: Final = {ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor"}
_COMPARE: Final = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq", ast.NotEq: "ne"}


def integer(number: int) -> Value:
    """Return a constant.

    Raises:
        Unsupported: It has more than 64 bits.
    """
    if not -(1 << 63) <= number < 1 << 63:
        raise Unsupported("an integer constant beyond 64 bits")
    return Value(f"(i64.const {number})", INT, bits=number.bit_length(), constant=number)


def real(number: float) -> Value:
    """Return a constant."""
    return Value(f"(f64.const {number.hex()})", FLOAT)  # of infinities and NaN, their names


def binary(f: Frame, op: ast.operator, left: Value, right: Value) -> Value:
    """Apply an arithmetic or bitwise operator to two numbers."""
    if UNKNOWN in (left.type, right.type):
        return Value(f"(block (result i64) (drop {left.code}) (drop {right.code}) unreachable)", UNKNOWN)
    if left.type not in NUMERIC or right.type not in NUMERIC:
        raise Unsupported(f"{type(op).__name__} of {left.type.name} and {right.type.name}")
    if left.type is BOOL and right.type is BOOL and type(op) in _BITWISE:
        return Value(f"(i32.{_BITWISE[type(op)]} {left.code} {right.code})", BOOL)
    if isinstance(op, ast.Div):
        return _divide(f, left, right)
    whole = (INT, BOOL)
    if left.type in whole and right.type in whole:
        return _integers(f, op, f.coerce(left, INT), f.coerce(right, INT))
    if type(op) in _BITWISE or isinstance(op, ast.LShift | ast.RShift):
        return _integers(f, op, f.coerce(left, INT), f.coerce(right, INT))
    if FLOAT in (left.type, right.type):
        return _floats(f, op, f.coerce(left, FLOAT), f.coerce(right, FLOAT))
    return _numbers(f, op, f.coerce(left, NUMBER), f.coerce(right, NUMBER))


def _floats(f: Frame, op: ast.operator, left: Value, right: Value) -> Value:
    if type(op) in _MARK:
        return Value(f"(f64.{_MARK[type(op)]} {left.code} {right.code})", FLOAT)
    if isinstance(op, ast.Pow):
        return library(f, "pow", left, right)
    if isinstance(op, ast.Mod | ast.FloorDiv):
        return _float_remainder(f, op, left, right)
    raise Unsupported(f"{type(op).__name__} of floats")


def library(f: Frame, name: str, left: Value, right: Value | None = None) -> Value:
    """Ask the host's mathematics library."""
    f.has_math.append(f.depth)
    other = right.code if right is not None else "(f64.const 0)"
    return Value(f"(call $math (i32.const {wat.MATH.index(name)}) {left.code} {other})", FLOAT)


def _float_remainder(f: Frame, op: ast.operator, left: Value, right: Value) -> Value:
    """As ``float_rem`` and ``float_floor_div`` of CPython's Objects/floatobject.c, on fmod."""
    x, y, mod, quotient, floor = (f.temp("f64") for _ in range(5))
    rest = library(f, "fmod", Value(f"(local.get {x})", FLOAT), Value(f"(local.get {y})", FLOAT))
    ready = (
        f"(local.set {x} {left.code}) (local.set {y} {right.code})"
        f" (br_if {f.give_up(wat.ZERO)} (f64.eq (local.get {y}) (f64.const 0)))"
        f" (local.set {mod} {rest.code})"
    )
    differ = f"(i32.ne (f64.lt (local.get {y}) (f64.const 0)) (f64.lt (local.get {mod}) (f64.const 0)))"
    if isinstance(op, ast.Mod):
        fix = (
            f"(if (f64.ne (local.get {mod}) (f64.const 0))"
            f" (then (if {differ} (then (local.set {mod} (f64.add (local.get {mod}) (local.get {y}))))))"
            f" (else (local.set {mod} (f64.copysign (f64.const 0) (local.get {y})))))"
        )
        return Value(f"(block (result f64) {ready} {fix} (local.get {mod}))", FLOAT)
    code = (
        f"(local.set {quotient} (f64.div (f64.sub (local.get {x}) (local.get {mod})) (local.get {y})))"
        f" (if (f64.ne (local.get {mod}) (f64.const 0)) (then (if {differ}"
        f" (then (local.set {quotient} (f64.sub (local.get {quotient}) (f64.const 1)))))))"
        f" (if (f64.ne (local.get {quotient}) (f64.const 0)) (then"
        f" (local.set {floor} (f64.floor (local.get {quotient})))"
        f" (if (f64.gt (f64.sub (local.get {quotient}) (local.get {floor})) (f64.const 0.5))"
        f" (then (local.set {floor} (f64.add (local.get {floor}) (f64.const 1))))))"
        f" (else (local.set {floor} (f64.copysign (f64.const 0) (f64.div (local.get {x}) (local.get {y}))))))"
    )
    return Value(f"(block (result f64) {ready} {code} (local.get {floor}))", FLOAT)


def _divide(f: Frame, left: Value, right: Value) -> Value:
    """True division; of integers it is exact rounding of the quotient, as long as floats hold both."""
    whole = (INT, BOOL)
    if left.type in whole and right.type in whole:
        left, right = f.coerce(left, NUMBER), f.coerce(right, NUMBER)
    left, right = f.coerce(left, FLOAT), f.coerce(right, FLOAT)
    y = f.temp("f64")
    test = f"(br_if {f.give_up(wat.ZERO)} (f64.eq (local.tee {y} {right.code}) (f64.const 0)))"
    return Value(f"(f64.div {left.code} (block (result f64) {test} (local.get {y})))", FLOAT)


def _numbers(f: Frame, op: ast.operator, left: Value, right: Value) -> Value:
    """Integers or floats, known only when it runs."""
    if type(op) not in _MARK:
        return _integers(f, op, f.coerce(left, INT), f.coerce(right, INT))
    ready_left, x = f.held(left)
    ready_right, y = f.held(right)
    tag, result = f.temp("i32"), f.temp("f64")
    code = (
        f"{ready_left} {ready_right} (local.set {tag} (i32.and {x.tag} {y.tag}))"
        f" (local.set {result} (f64.{_MARK[type(op)]} {x.code} {y.code}))"
    )
    # An integer has no negative zero; at 2**53 and beyond the float may have been rounded.
    code += (
        f" (if (local.get {tag}) (then (local.set {result} (f64.add (local.get {result}) (f64.const 0)))"
        f" (br_if {f.give_up(wat.PRECISION)} (f64.ge (f64.abs (local.get {result})) (f64.const {float(1 << 53)!r})))))"
    )
    return Value(f"(block (result f64) {code} (local.get {result}))", NUMBER, f"(local.get {tag})")


def _integers(f: Frame, op: ast.operator, left: Value, right: Value) -> Value:
    kind = type(op)
    if kind in _MARK:
        return _checked(f, _MARK[kind], left, right)
    if kind in _BITWISE:
        bits = min(ANY_BITS, max(left.bits, right.bits) + 1)
        if kind is ast.BitAnd:
            masks = [v.bits for v in (left, right) if v.constant is not None and v.constant >= 0]
            bits = min([bits, *masks])
        return Value(f"(i64.{_BITWISE[kind]} {left.code} {right.code})", INT, bits=bits)
    if kind is ast.RShift:
        return _shift_right(f, left, right)
    if kind is ast.LShift:
        return _shift_left(f, left, right)
    if kind is ast.Mod:
        return _modulo(f, left, right)
    if kind is ast.FloorDiv:
        return _floor_divide(f, left, right)
    if kind is ast.Pow:
        if right.constant == 2:
            ready, x = f.held(left)
            square = _checked(f, "mul", x, x)
            return Value(f"(block (result i64) {ready} {square.code})", INT, bits=square.bits)
        return Value(f"(call $ipow {left.code} {right.code})", INT)
    raise Unsupported(f"{kind.__name__} of integers")


def _checked(f: Frame, mark: str, left: Value, right: Value) -> Value:
    bits = left.bits + right.bits if mark == "mul" else max(left.bits, right.bits) + 1
    if bits <= _SAFE_BITS:
        return Value(f"(i64.{mark} {left.code} {right.code})", INT, bits=bits)
    x, r = f.temp("i64"), f.temp("i64")
    stop = f.give_up(wat.OVERFLOW)
    if mark == "mul":
        code = (
            f"(i64.mul_wide_s {left.code} {right.code}) (local.set {x}) (local.set {r})"
            f" (br_if {stop} (i64.ne (local.get {x}) (i64.shr_s (local.get {r}) (i64.const 63))))"
        )
        return Value(f"(block (result i64) {code} (local.get {r}))", INT)
    if right.constant is not None and right.constant >= 0:
        wrapped = "lt_s" if mark == "add" else "gt_s"
        code = (
            f"(local.set {r} (i64.{mark} (local.tee {x} {left.code}) {right.code}))"
            f" (br_if {stop} (i64.{wrapped} (local.get {r}) (local.get {x})))"
        )
        return Value(f"(block (result i64) {code} (local.get {r}))", INT)
    y = f.temp("i64")
    other = (
        f"(i64.xor (local.get {y}) (local.get {r}))" if mark == "add" else f"(i64.xor (local.get {x}) (local.get {y}))"
    )
    code = (
        f"(local.set {r} (i64.{mark} (local.tee {x} {left.code}) (local.tee {y} {right.code})))"
        f" (br_if {stop} (i64.lt_s (i64.and (i64.xor (local.get {x}) (local.get {r})) {other}) (i64.const 0)))"
    )
    return Value(f"(block (result i64) {code} (local.get {r}))", INT)


def _shift_right(f: Frame, left: Value, right: Value) -> Value:
    if right.constant is not None and 0 <= right.constant <= 63:
        return Value(f"(i64.shr_s {left.code} {right.code})", INT, bits=max(1, left.bits - right.constant))
    x, n = f.temp("i64"), f.temp("i64")
    code = (
        f"(local.set {x} {left.code}) (br_if {f.give_up(wat.DOMAIN)}"
        f" (i64.lt_s (local.tee {n} {right.code}) (i64.const 0)))"
        f" (i64.shr_s (local.get {x})"
        f" (select (local.get {n}) (i64.const 63) (i64.lt_s (local.get {n}) (i64.const 63))))"
    )
    return Value(f"(block (result i64) {code})", INT, bits=left.bits)


def _shift_left(f: Frame, left: Value, right: Value) -> Value:
    if right.constant is not None and right.constant >= 0 and left.bits + right.constant <= _SAFE_BITS:
        return Value(f"(i64.shl {left.code} {right.code})", INT, bits=left.bits + right.constant)
    x, n, r = f.temp("i64"), f.temp("i64"), f.temp("i64")
    stop = f.give_up(wat.OVERFLOW)
    code = (
        f"(local.set {x} {left.code}) (br_if {stop} (i64.ge_u (local.tee {n} {right.code}) (i64.const 63)))"
        f" (br_if {stop} (i64.ne (local.get {x})"
        f" (i64.shr_s (local.tee {r} (i64.shl (local.get {x}) (local.get {n}))) (local.get {n}))))"
    )
    return Value(f"(block (result i64) {code} (local.get {r}))", INT)


def _modulo(f: Frame, left: Value, right: Value) -> Value:
    n = right.constant
    if n is not None and n > 0:
        bits = (n - 1).bit_length()
        if n & (n - 1) == 0:
            return Value(f"(i64.and {left.code} (i64.const {n - 1}))", INT, bits=bits)
        r = f.temp("i64")
        fix = f"(i64.and (i64.shr_s (local.get {r}) (i64.const 63)) (i64.const {n}))"
        code = f"(local.set {r} (i64.rem_s {left.code} (i64.const {n}))) (i64.add (local.get {r}) {fix})"
        return Value(f"(block (result i64) {code})", INT, bits=bits)
    y, r = f.temp("i64"), f.temp("i64")
    code = (
        f"(local.set {r} (i64.rem_s {left.code} (local.tee {y} {right.code})))"
        f" (if (i64.lt_s (i64.xor (local.get {r}) (local.get {y})) (i64.const 0)) (then"
        f" (if (i64.ne (local.get {r}) (i64.const 0)) (then"
        f" (local.set {r} (i64.add (local.get {r}) (local.get {y})))))))"
    )
    return Value(f"(block (result i64) {code} (local.get {r}))", INT, bits=right.bits)


def _floor_divide(f: Frame, left: Value, right: Value) -> Value:
    n = right.constant
    if n is not None and n > 0 and n & (n - 1) == 0:
        return Value(f"(i64.shr_s {left.code} (i64.const {n.bit_length() - 1}))", INT, bits=left.bits)
    x, y, q, r = (f.temp("i64") for _ in range(4))
    divisor = f"(local.get {y})" if n is None else f"(i64.const {n})"
    # Division by zero, and of the least integer by -1, trap by themselves.
    code = (
        f"(local.set {x} {left.code}) (local.set {y} {right.code})"
        f" (local.set {q} (i64.div_s (local.get {x}) {divisor}))"
        f" (local.set {r} (i64.sub (local.get {x}) (i64.mul (local.get {q}) {divisor})))"
        f" (if (i64.lt_s (i64.xor (local.get {r}) {divisor}) (i64.const 0)) (then"
        f" (local.set {q} (i64.sub (local.get {q}) (i64.extend_i32_u (i64.ne (local.get {r}) (i64.const 0)))))))"
    )
    return Value(f"(block (result i64) {code} (local.get {q}))", INT, bits=left.bits)


def negative(f: Frame, value: Value) -> Value:
    """Apply unary minus."""
    if value.type is FLOAT:
        return Value(f"(f64.neg {value.code})", FLOAT)
    if value.type is NUMBER:
        held, x = f.held(value)
        code = f"(select (f64.sub (f64.const 0) {x.code}) (f64.neg {x.code}) {x.tag})"
        return Value(f"(block (result f64) {held} {code})", NUMBER, x.tag)
    if value.type in (INT, BOOL):
        return _checked(f, "sub", integer(0), f.coerce(value, INT))
    return _nothing_else(value, "unary minus")


def absolute(f: Frame, value: Value) -> Value:
    """Apply ``abs``."""
    if value.type is FLOAT:
        return Value(f"(f64.abs {value.code})", FLOAT)
    if value.type is NUMBER:
        return Value(f"(f64.abs {value.code})", NUMBER, value.tag)
    if value.type in (INT, BOOL):
        held, x = f.held(f.coerce(value, INT))
        minus = _checked(f, "sub", integer(0), x)
        test = f"(i64.lt_s {x.code} (i64.const 0))"
        code = f"(if (result i64) {test} (then {minus.code}) (else {x.code}))"
        return Value(f"(block (result i64) {held} {code})", INT, bits=value.bits)
    return _nothing_else(value, "abs")


def inverted(f: Frame, value: Value) -> Value:
    """Apply ``~``."""
    if value.type in (INT, FLOAT, NUMBER):
        value = f.coerce(value, INT)
        return Value(f"(i64.xor {value.code} (i64.const -1))", INT, bits=min(ANY_BITS, value.bits + 1))
    return _nothing_else(value, "~")


def _nothing_else(value: Value, what: str) -> Value:
    if value.type is UNKNOWN:
        return _NOTHING
    raise Unsupported(f"{what} of {value.type.name}")


def compare(f: Frame, op: ast.cmpop, left: Value, right: Value) -> str:
    """Return code for a comparison, as 0 or 1."""
    if type(op) not in _COMPARE:
        raise Unsupported(f"the operator {type(op).__name__}")
    mark = _COMPARE[type(op)]
    signed = mark if mark in ("eq", "ne") else mark + "_s"
    if UNKNOWN in (left.type, right.type):
        return f"(block (result i32) (drop {left.code}) (drop {right.code}) unreachable)"
    if left.type is CHAR and right.type is CHAR:
        return f"(i32.{signed} {left.code} {right.code})"
    if left.type not in NUMERIC or right.type not in NUMERIC:
        raise Unsupported(f"a comparison of {left.type.name} and {right.type.name}")
    if left.type in (INT, BOOL) and right.type in (INT, BOOL):
        return f"(i64.{signed} {f.coerce(left, INT).code} {f.coerce(right, INT).code})"
    # As numbers: CPython compares an integer with a float exactly.
    return f"(f64.{mark} {f.coerce(left, NUMBER).code} {f.coerce(right, NUMBER).code})"


def choice(f: Frame, test: str, yes: Value, no: Value, ready: str = "") -> Value:
    """Return one of two values."""
    kind: Type = join(yes.type, no.type)[0]
    if not kind.wasm:
        raise Unsupported(f"a choice of {kind.name}")
    yes, no = f.coerce(yes, kind), f.coerce(no, kind)
    if kind is not NUMBER:
        code = f"(if (result {kind.wasm}) {test} (then {yes.code}) (else {no.code}))"
        bits = max(yes.bits, no.bits)
        return Value(f"(block (result {kind.wasm}) {ready} {code})" if ready else code, kind, bits=bits)
    result, tag = f.temp(kind.wasm), f.temp("i32")
    arms = [f"(local.set {result} {arm.code}) (local.set {tag} {arm.tag})" for arm in (yes, no)]
    code = f"{ready} (if {test} (then {arms[0]}) (else {arms[1]})) (local.get {result})"
    return Value(f"(block (result {kind.wasm}) {code})", kind, f"(local.get {tag})")
