"""What can be iterated over, and the loops around it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from runvisor.policies.numeric import arithmetic, lists, wat
from runvisor.policies.numeric.arithmetic import integer
from runvisor.policies.numeric.frame import Frame, Value
from runvisor.policies.numeric.types import BOOL, FLOAT, INT, NUMBER, Unsupported

_LARGE_BITS = 62
_MAX_COUNT_BITS = 61


@dataclass(slots=True)
class Iteration:
    """Code that walks something; items are read once, at the head of the body."""

    setup: str
    exhausted: str
    item: Item
    advance: str


Item = Value | list["Item"]


def iterate(f: Frame, node: ast.expr) -> Iteration:
    """Lower what follows ``in``.

    Raises:
        Unsupported: It is nothing that is iterated over here.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        match f.meaning(node.func.id), node.args:
            case "builtin:range", [_, *_] as bounds if len(bounds) <= 3:
                return _range(f, [f.coerce(f.value(bound), INT) for bound in bounds])
            case "builtin:enumerate", [inner, *start] if len(start) <= 1:
                return _enumerate(f, iterate(f, inner), f.value(start[0]) if start else integer(0))
            case "builtin:zip", [_, *_] as parts:
                return _zip([iterate(f, part) for part in parts])
            case "builtin:reversed", [ast.Call(func=ast.Name(id=name), args=bounds, keywords=[])] if (
                f.meaning(name) == "builtin:range" and 1 <= len(bounds) <= 2
            ):
                return _range_down(f, [f.coerce(f.value(bound), INT) for bound in bounds])
            case "builtin:reversed", [sequence]:
                return _sequence(f, f.value(sequence), backwards=True)
    if isinstance(node, ast.Tuple | ast.List):
        return _sequence(f, _literal(f, node))
    return _sequence(f, f.value(node))


def _literal(f: Frame, node: ast.Tuple | ast.List) -> Value:
    """Lower a literal that is only walked: if it is constant, it is made once in a call of the function."""
    made = f.value(f.as_list(node) if isinstance(node, ast.Tuple) else node)
    parts = [part.operand if isinstance(part, ast.UnaryOp) else part for part in node.elts]
    if not all(isinstance(part, ast.Constant) for part in parts):
        return made
    kept = f.temp("i32")
    make = f"(if (i32.eqz (local.get {kept})) (then (local.set {kept} {made.code})))"
    return Value(f"(block (result i32) {make} (local.get {kept}))", made.type)


def _local(held: Value) -> str:
    """Return the local of a held value."""
    return held.code.removeprefix("(local.get ").removesuffix(")")


def _bounded(f: Frame, value: Value) -> tuple[str, Value]:
    """Keep a number, of a magnitude that a step may be added to."""
    ready, held = f.held(value)
    if value.bits > _LARGE_BITS:
        half = 1 << (_LARGE_BITS - 1)
        beyond = f"(i64.gt_u (i64.add {held.code} (i64.const {half})) (i64.const {2 * half}))"
        ready += f" (br_if {f.give_up(wat.OVERFLOW)} {beyond})"
        held.bits = _LARGE_BITS
    return ready, held


def _range(f: Frame, bounds: list[Value]) -> Iteration:
    start, stop = (integer(0), bounds[0]) if len(bounds) == 1 else (bounds[0], bounds[1])
    step = bounds[2] if len(bounds) == 3 else integer(1)
    first, i = _bounded(f, Value(start.code, INT, bits=start.bits))
    second, end = _bounded(f, stop)
    i.constant, i.bits = None, max(i.bits, end.bits)
    if step.constant:
        if step.bits > _MAX_COUNT_BITS:
            raise Unsupported("a range with a huge step")
        third, by = "", step
        over = f"(i64.{'ge_s' if step.constant > 0 else 'le_s'} {i.code} {end.code})"
    else:
        third, by = _bounded(f, step)
        third += f" (br_if {f.give_up(wat.DOMAIN)} (i64.eqz {by.code}))"
        up = f"(i64.ge_s {i.code} {end.code})"
        down = f"(i64.le_s {i.code} {end.code})"
        over = f"(select {up} {down} (i64.gt_s {by.code} (i64.const 0)))"
    local = _local(i)
    return Iteration(f"{first} {second} {third}", over, i, f"(local.set {local} (i64.add {i.code} {by.code}))")


def _range_down(f: Frame, bounds: list[Value]) -> Iteration:
    start, stop = (integer(0), bounds[0]) if len(bounds) == 1 else (bounds[0], bounds[1])
    first, end = _bounded(f, start)
    second, top = _bounded(f, stop)
    ready, i = f.held(Value(f"(i64.sub {top.code} (i64.const 1))", INT, bits=max(end.bits, top.bits) + 1))
    local = _local(i)
    over = f"(i64.lt_s {i.code} {end.code})"
    return Iteration(f"{first} {second} {ready}", over, i, f"(local.set {local} (i64.sub {i.code} (i64.const 1)))")


def _sequence(f: Frame, sequence: Value, *, backwards: bool = False) -> Iteration:
    """Walk a list as its iterator does: by index, looking at the length each time."""
    lists.item_of(sequence)
    if sequence.type.wasm != "i32":
        sequence = Value(sequence.code, sequence.type)
        return Iteration("", "(unreachable)", Value("(unreachable)", sequence.type), "")
    ready, p = f.held(sequence)
    i = f.temp("i32")
    start = f"(i32.sub (i32.load offset=4 {p.code}) (i32.const 1))" if backwards else "(i32.const 0)"
    over = f"(i32.ge_u (local.get {i}) (i32.load offset=4 {p.code}))"
    step = f"(local.set {i} (i32.{'sub' if backwards else 'add'} (local.get {i}) (i32.const 1)))"
    return Iteration(f"{ready} (local.set {i} {start})", over, lists.at(f, p, f"(local.get {i})"), step)


def _enumerate(f: Frame, inner: Iteration, start: Value) -> Iteration:
    ready, i = _bounded(f, f.coerce(Value(start.code, start.type, start.tag, start.bits), INT))
    i.constant, i.bits = None, max(i.bits, 32) + 1
    local = _local(i)
    advance = f"{inner.advance} (local.set {local} (i64.add {i.code} (i64.const 1)))"
    return Iteration(f"{inner.setup} {ready}", inner.exhausted, [i, inner.item], advance)


def _zip(parts: list[Iteration]) -> Iteration:
    over = parts[-1].exhausted
    for part in reversed(parts[:-1]):
        over = f"(if (result i32) {part.exhausted} (then (i32.const 1)) (else {over}))"
    setup, advance = " ".join(part.setup for part in parts), " ".join(part.advance for part in parts)
    return Iteration(setup, over, [part.item for part in parts], advance)


def repeat(f: Frame, test: str, body: Callable[[int], str], advance: str, otherwise: Callable[[], str] | None) -> str:
    """Write a loop.

    Args:
        f: The function.
        test: Whether it has ended, as 0 or 1.
        body: Returns the body's code, given the loop's number.
        advance: Code between two rounds; ``continue`` goes there.
        otherwise: Returns the code of ``else``.
    """
    n = f.fresh()
    f.depth += 1
    f.deepest = max(f.deepest, f.depth)
    f.loops.append((f"$break{n}", f"$next{n}"))
    inside = body(n)
    f.loops.pop()
    f.depth -= 1
    rest = otherwise() if otherwise else ""
    f.locals["$poll"] = "i32"
    poll = (
        "(if (i32.eqz (local.tee $poll (i32.sub (local.get $poll) (i32.const 1))))"
        f" (then (call $poll) (local.set $poll (i32.const {wat.POLL_EVERY}))))"
    )
    return (
        f"(block $break{n} (block $done{n} (loop $again{n} (br_if $done{n} {test})\n"
        f"(block $next{n}\n{inside}\n)\n{advance} {poll} (br $again{n})))\n{rest})"
    )


def unpack(target: ast.expr, item: Item, assign: Callable[[str, Value], str]) -> str:
    """Give an item, perhaps of several parts, to the names of a target."""
    if isinstance(target, ast.Name) and isinstance(item, Value):
        return assign(target.id, item)
    if isinstance(target, ast.Tuple | ast.List) and isinstance(item, list) and len(target.elts) == len(item):
        return "\n".join(unpack(name, part, assign) for name, part in zip(target.elts, item, strict=True))
    raise Unsupported("this target of a loop")


def nest(f: Frame, generators: list[ast.comprehension], body: Callable[[], str]) -> str:
    """Lower the loops of a comprehension around a body, with names of their own."""
    if not generators:
        return body()
    part = generators[0]
    if part.is_async:
        raise Unsupported("async")
    walk = iterate(f, part.iter)
    before: list[tuple[str, Value | None]] = []

    def bind(name: str, value: Value) -> str:
        ready, held = f.held(value)
        before.append((name, f.bind(name, held)))
        return ready

    def inside(_: int) -> str:
        ready = unpack(part.target, walk.item, bind)
        tests = [f.truth(f.value(test)) for test in part.ifs]
        code = nest(f, generators[1:], body)
        for test in reversed(tests):
            code = f"(if {test} (then {code}))"
        for name, value in reversed(before):
            f.bind(name, value)
        return f"{ready}\n{code}"

    return f"{walk.setup} {repeat(f, walk.exhausted, inside, walk.advance, None)}"


def total(f: Frame, node: ast.expr) -> Value:
    """Lower ``sum`` of a list or generator."""
    item, around = _each(f, node)
    kind = item.type
    if kind is not INT and f.program.compensated_sums:
        raise Unsupported("sum of floats")
    start = Value("(i64.const 0)", INT, bits=0)
    if kind.wasm == "f64":
        start = Value("(f64.const 0)", kind, "(i32.const 1)")
    ready, held = f.held(start)
    local = _local(held)
    if kind is not FLOAT:
        added = arithmetic.binary(f, ast.Add(), Value(held.code, held.type, held.tag), item)
        again = f" (local.set {_local(Value(held.tag, BOOL))} {added.tag})" if kind is NUMBER else ""
        code = around(f"(local.set {local} {added.code}){again}")
        return Value(f"(block (result {held.type.wasm}) {ready} {code} {held.code})", held.type, held.tag)
    # Python begins with the integer 0, so that no float at all leaves an integer.
    mark = f.temp("i32")
    code = around(f"(local.set {local} (f64.add {held.code} {item.code})) (local.set {mark} (i32.const 0))")
    return Value(
        f"(block (result f64) {ready} (local.set {mark} (i32.const 1)) {code} {held.code})",
        NUMBER,
        f"(local.get {mark})",
    )


def quantifier(f: Frame, node: ast.expr, *, every: bool) -> str:
    """Lower ``all`` or ``any`` of a generator."""
    n, found = f.fresh(), f.temp("i32")
    item, around = _each(f, node)
    test = f.truth(item)
    stop = f"(i32.eqz {test})" if every else test
    code = around(f"(if {stop} (then (local.set {found} (i32.const {int(not every)})) (br $found{n})))")
    start = f"(local.set {found} (i32.const {int(every)}))"
    return f"(block (result i32) {start} (block $found{n} {code}) (local.get {found}))"


def _each(f: Frame, node: ast.expr) -> tuple[Value, Callable[[str], str]]:
    """Return the element of a list or generator, and how to put code about it into its loop."""
    if isinstance(node, ast.GeneratorExp | ast.ListComp):
        found: list[Value] = []

        def body() -> str:
            found.append(f.value(node.elt))
            return "\0"

        frame = nest(f, node.generators, body)
    else:
        walk = iterate(f, node)
        if not isinstance(walk.item, Value):
            raise Unsupported("pairs as numbers")
        found = [walk.item]
        frame = f"{walk.setup} {repeat(f, walk.exhausted, lambda _: chr(0), walk.advance, None)}"
    return found[0], lambda code: frame.replace("\0", code)
