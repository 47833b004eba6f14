"""Calls: of builtins, of ``math``, of methods of lists, and of other compiled functions."""

from __future__ import annotations

import ast

from runvisor.policies.numeric import arithmetic, lists, loops, wat
from runvisor.policies.numeric.frame import Frame, Types, Value
from runvisor.policies.numeric.types import (
    BOOL,
    CHAR,
    FLOAT,
    INT,
    NONE,
    NUMBER,
    UNKNOWN,
    ListOf,
    TupleOf,
    Type,
    Unsupported,
    join,
)

_INFINITIES = {"inf", "-inf", "infinity", "-infinity", "+inf", "nan"}


def results(kind: Type) -> list[str]:
    """Return the WebAssembly types that a returned value takes."""
    if isinstance(kind, TupleOf):
        return [wasm for item in kind.items for wasm in results(item)]
    if kind is NUMBER:
        return ["f64", "i32"]
    return [kind.wasm] if kind.wasm else []


def lower(f: Frame, node: ast.Call) -> Value:
    """Lower a call.

    Raises:
        Unsupported: It is of something that is not compiled.
    """
    if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
        raise Unsupported("keyword or starred arguments")
    if isinstance(node.func, ast.Attribute):
        return _attribute(f, node, node.func)
    if not isinstance(node.func, ast.Name):
        raise Unsupported("a call of a computed function")
    kind, _, name = f.meaning(node.func.id).partition(":")
    if kind == "function":
        return _function(f, name, [f.value(argument) for argument in node.args])
    if kind == "math":
        return _math(f, name, [f.value(argument) for argument in node.args])
    if kind == "builtin":
        return _builtin(f, name, node)
    raise Unsupported(f"a call of {node.func.id!r}")


def _attribute(f: Frame, node: ast.Call, function: ast.Attribute) -> Value:
    owner = function.value
    if isinstance(owner, ast.Name) and f.meaning(owner.id) == "math":
        return _math(f, function.attr, [f.value(argument) for argument in node.args])
    sequence = f.value(owner)
    if sequence.type is UNKNOWN:
        for argument in node.args:
            f.value(argument)
        return sequence
    if isinstance(sequence.type, ListOf):
        match function.attr, node.args:
            case "append", [item]:
                ready, p = f.held(sequence)
                return Value(f"{ready} {lists.append(f, p, f.value(item))}", NONE)
            case "pop", []:
                return lists.pop(f, sequence)
            case "copy", []:
                return lists.part(f, sequence, ast.Slice())
    raise Unsupported(f"the method {function.attr!r} of {sequence.type.name}")


def _function(f: Frame, name: str, arguments: list[Value]) -> Value:
    program = f.program
    function = program.functions.get(name)
    if function is None or len(function.args.args) != len(arguments):
        raise Unsupported(f"this call of {name!r}")
    if name not in program.types:
        program.types[name] = Types()
        program.changed = True
    program.calls.add((f.name, name))
    types = program.types[name]
    code = ""
    for parameter, argument in zip(function.args.args, arguments, strict=True):
        if not argument.type.wasm:
            raise Unsupported(f"{argument.type.name} as an argument")
        program.widen(types.variables, parameter.arg, argument.type)
        value = f.coerce(argument, types.variables[parameter.arg])
        code += f" {value.code}" + (f" {value.tag}" if value.type is NUMBER else "")
    call = f"(call $f{list(program.types).index(name)}{code})"
    kind = types.returns
    if program.recursive:
        shape = "".join(f" (result {wasm})" for wasm in results(kind))
        leave = "(global.set $depth (i32.add (global.get $depth) (i32.const 1)))"
        call = f"(block{shape} (call $enter) {call} {leave})"
    if kind is not NUMBER:
        return Value(call, kind)
    tag, result = f.temp("i32"), f.temp("f64")
    code = f"{call} (local.set {tag}) (local.set {result}) (local.get {result})"
    return Value(f"(block (result f64) {code})", NUMBER, f"(local.get {tag})")


def _math(f: Frame, name: str, arguments: list[Value]) -> Value:
    if any(argument.type is UNKNOWN for argument in arguments):
        return Value("(unreachable)", UNKNOWN)
    if any(argument.type not in (INT, FLOAT, BOOL, NUMBER) for argument in arguments):
        raise Unsupported(f"math.{name} of these")
    if name in ("floor", "ceil") and len(arguments) == 1:
        if arguments[0].type in (INT, BOOL):
            return f.coerce(arguments[0], INT)
        rounded = Value(f"(f64.{name} {f.coerce(arguments[0], FLOAT).code})", FLOAT)
        return _truncated(f, rounded)
    floats = [f.coerce(argument, FLOAT) for argument in arguments]
    if name == "sqrt" and len(floats) == 1:
        x = f.temp("f64")
        negative = f"(f64.lt (local.tee {x} {floats[0].code}) (f64.const 0))"
        test = f"(br_if {f.give_up(wat.DOMAIN)} {negative})"
        return Value(f"(block (result f64) {test} (f64.sqrt (local.get {x})))", FLOAT)
    if name == "fabs" and len(floats) == 1:
        return Value(f"(f64.abs {floats[0].code})", FLOAT)
    if name in wat.MATH and len(floats) == (2 if name in ("pow", "atan2", "hypot", "fmod") else 1):
        return arithmetic.library(f, "math." + name if name == "pow" else name, *floats)
    raise Unsupported(f"math.{name}")


def _truncated(f: Frame, value: Value) -> Value:
    x = f.temp("f64")
    # Not below, so that NaN stops too.
    fits = f"(f64.lt (f64.abs (local.tee {x} {value.code})) (f64.const 9.2e18))"
    test = f"(br_if {f.give_up(wat.OVERFLOW)} (i32.eqz {fits}))"
    return Value(f"(block (result i64) {test} (i64.trunc_f64_s (local.get {x})))", INT, bits=63)


def _builtin(f: Frame, name: str, node: ast.Call) -> Value:
    match name, node.args:
        case "float", [ast.Constant(value=str(text))] if text.strip().lower() in _INFINITIES:
            return arithmetic.real(float(text))
        case "sum", [items]:
            return loops.total(f, items)
        case (("all" | "any"), [ast.GeneratorExp() as items]):
            return Value(loops.quantifier(f, items, every=name == "all"), BOOL)
        case "list", [ast.Call() as items]:
            made = ast.ListComp(ast.Name("item", ast.Load()), [ast.comprehension(ast.Name("item"), items, [], 0)])
            return _list(f, node, made)
        case (("min" | "max"), [_, _, *_]):
            return _extreme(f, [f.value(argument) for argument in node.args], largest=name == "max")
    arguments = [f.value(argument) for argument in node.args]
    if len(arguments) != 1:
        raise Unsupported(f"this call of {name}")
    value = arguments[0]
    if value.type is UNKNOWN:
        return Value("(unreachable)", UNKNOWN)
    match name:
        case "len":
            return lists.length(value)
        case "abs":
            return arithmetic.absolute(f, value)
        case "float" if value.type in (INT, BOOL, FLOAT, NUMBER):
            return f.coerce(f.coerce(value, INT) if value.type is BOOL else value, FLOAT)
        case "int" if value.type in (INT, BOOL):
            return f.coerce(value, INT)
        case "int" if value.type in (FLOAT, NUMBER):
            return _truncated(f, value)
        case "round" if value.type in (INT, BOOL):
            return f.coerce(value, INT)
        case "round" if value.type in (FLOAT, NUMBER):
            return _truncated(f, Value(f"(f64.nearest {value.code})", FLOAT))
        case "bool":
            return Value(f.truth(value), BOOL)
        case "ord" if value.type is CHAR:
            return Value(f"(i64.extend_i32_u {value.code})", INT, bits=21)
        case "list" if isinstance(value.type, ListOf):
            return lists.part(f, value, ast.Slice())
        case "min" | "max" if isinstance(value.type, ListOf):
            return _extreme_of(f, value, largest=name == "max")
    raise Unsupported(f"{name} of {value.type.name}")


def _list(f: Frame, node: ast.Call, made: ast.ListComp) -> Value:
    ready, p = lists.empty(f, f.cell(node))
    code = loops.nest(f, made.generators, lambda: lists.append(f, p, f.value(made.elt)))
    return Value(f"(block (result i32) {ready} {code} {p.code})", p.type)


def _extreme(f: Frame, values: list[Value], *, largest: bool) -> Value:
    """As Python: the first stays unless a later one is really beyond it, so order decides about NaN."""
    ready, best = f.held(values[0])
    for value in values[1:]:
        keep, other = f.held(value)
        ready += " " + keep
        beyond = arithmetic.compare(f, ast.Gt() if largest else ast.Lt(), other, best)
        kind = join(best.type, other.type)[0]
        if best.type is not other.type and BOOL in (best.type, other.type):
            raise Unsupported("min or max of mixed types")
        if not kind.wasm:
            raise Unsupported("min or max of these")
        picked = arithmetic.choice(f, beyond, other, best)
        if kind in (INT, FLOAT):
            picked = Value(f"(select {other.code} {best.code} {beyond})", kind, bits=max(other.bits, best.bits))
        keep, best = f.held(picked)
        ready += " " + keep
    return Value(f"(block (result {best.type.wasm}) {ready} {best.code})", best.type, best.tag, best.bits)


def _extreme_of(f: Frame, sequence: Value, *, largest: bool) -> Value:
    kind = lists.item_of(sequence)
    if kind not in (INT, FLOAT):
        raise Unsupported(f"min or max of {sequence.type.name}")
    ready, p = f.held(sequence)
    i, n, best, x = f.temp("i32"), f.fresh(), f.temp(kind.wasm), f.temp(kind.wasm)
    mark = ("gt" if largest else "lt") + ("_s" if kind is INT else "")
    first = lists.at(f, p, "(i32.const 0)").code
    again = lists.at(f, p, f"(local.get {i})").code
    return Value(
        f"(block (result {kind.wasm}) {ready}"
        f" (br_if {f.give_up(wat.DOMAIN)} (i32.eqz (i32.load offset=4 {p.code})))"
        f" (local.set {best} {first}) (local.set {i} (i32.const 1))"
        f" (block $out{n} (loop $again{n} (br_if $out{n} (i32.ge_u (local.get {i}) (i32.load offset=4 {p.code})))"
        f" (local.set {best} (select (local.tee {x} {again}) (local.get {best})"
        f" ({kind.wasm}.{mark} (local.get {x}) (local.get {best}))))"
        f" (local.set {i} (i32.add (local.get {i}) (i32.const 1))) (br $again{n}))) (local.get {best}))",
        kind,
    )
