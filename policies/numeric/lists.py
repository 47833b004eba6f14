"""Lists, strings and bytes: elements, what makes lists, and what changes them."""

from __future__ import annotations

import ast
from collections.abc import Callable

from runvisor.policies.numeric import wat
from runvisor.policies.numeric.arithmetic import integer
from runvisor.policies.numeric.frame import Frame, Value
from runvisor.policies.numeric.types import (
    BYTES,
    CHAR,
    INT,
    NUMBER,
    TEXT,
    UNKNOWN,
    Cell,
    ListOf,
    Type,
    Unsupported,
)


def item_of(sequence: Value) -> Type:
    """Return the type of a sequence's elements."""
    if isinstance(sequence.type, ListOf):
        return sequence.type.cell.item
    if sequence.type is TEXT:
        return CHAR
    if sequence.type is BYTES:
        return INT
    if sequence.type is UNKNOWN:
        return UNKNOWN
    raise Unsupported(f"{sequence.type.name} as a sequence")


def length(sequence: Value) -> Value:
    """Return ``len``."""
    item_of(sequence)
    if sequence.type is UNKNOWN:
        return Value("(unreachable)", INT)
    return Value(f"(i64.load32_u offset=4 {sequence.code})", INT, bits=32)


def _size(sequence: Value) -> int:
    return 1 if sequence.type is BYTES else item_of(sequence).size


def place(f: Frame, sequence: Value, index: Value) -> tuple[str, str]:
    """Find an element: code that checks the index, and code for its address."""
    index = f.coerce(index, INT)
    stop = f.give_up(wat.INDEX)
    ready, k, p = "", f.temp("i64"), sequence.code
    if not p.startswith("(local.get"):
        local = f.temp("i32")
        ready, p = f"(local.set {local} {p}) ", f"(local.get {local})"
    size = f"(i64.load32_u offset=4 {p})"
    if index.constant is not None and index.constant >= 0:
        ready += f"(br_if {stop} (i64.ge_u (local.tee {k} {index.code}) {size}))"
    elif index.constant is not None:
        ready += f"(br_if {stop} (i64.ge_u (local.tee {k} (i64.add {index.code} {size})) {size}))"
    else:
        # Below zero is huge when unsigned; with the length added it is small again, or out of range.
        ready += (
            f"(if (i64.ge_u (local.tee {k} {index.code}) {size}) (then"
            f" (br_if {stop} (i64.ge_u (local.tee {k} (i64.add (local.get {k}) {size})) {size}))))"
        )
    return ready, _address(p, f"(i32.wrap_i64 (local.get {k}))", _size(sequence))


def _address(p: str, index: str, size: int) -> str:
    scaled = index if size == 1 else f"(i32.shl {index} (i32.const {size.bit_length() - 1}))"
    return f"(i32.add (i32.load {p}) {scaled})"


def at(f: Frame, sequence: Value, index: str) -> Value:
    """Return the element at a checked 32-bit index; the sequence's code is used once."""
    return load(f, sequence, "", _address(sequence.code, index, _size(sequence)))


def load(f: Frame, sequence: Value, ready: str, address: str) -> Value:
    """Read an element."""
    kind = item_of(sequence)
    if kind is NUMBER:
        a, tag = f.temp("i32"), f.temp("i32")
        code = f"{ready} (local.set {a} {address}) (local.set {tag} (i32.load offset=8 (local.get {a})))"
        return Value(f"(block (result f64) {code} (f64.load (local.get {a})))", NUMBER, f"(local.get {tag})")
    read = "i64.load8_u" if sequence.type is BYTES else kind.load
    code = f"({read} {address})"
    bits = 8 if sequence.type is BYTES else 64
    return Value(f"(block (result {kind.wasm}) {ready} {code})" if ready else code, kind, bits=bits)


def store(f: Frame, sequence: Value, address: str, value: Value) -> str:
    """Write an element; the address is code without effects."""
    assert isinstance(sequence.type, ListOf)
    kind = sequence.type.cell.item
    value = f.coerce(value, kind)
    if kind is NUMBER:
        a = f.temp("i32")
        return (
            f"(local.set {a} {address}) (f64.store (local.get {a}) {value.code})"
            f" (i32.store offset=8 (local.get {a}) {value.tag})"
        )
    return f"({kind.store} {address} {value.code})"


def widen(f: Frame, sequence: Value, kind: Type) -> None:
    """Note that a list is given an element of a type.

    Raises:
        Unsupported: It is no list, or cannot hold it.
    """
    if not isinstance(sequence.type, ListOf):
        raise Unsupported(f"changing {sequence.type.name}")
    if not kind.wasm:
        raise Unsupported(f"a list of {kind.name}")
    f.program.changed |= sequence.type.cell.widen(kind)
    f.program.changed |= sequence.type.cell.mutate()


def append(f: Frame, sequence: Value, value: Value) -> str:
    """Append to a list whose code may be run often."""
    widen(f, sequence, value.type)
    p = sequence.code
    ready, held = f.held(f.coerce(value, item_of(sequence)))
    size = _size(sequence)
    end = f"(i32.load offset=4 {p})"
    return (
        f"{ready} (if (i32.ge_u {end} (i32.load offset=8 {p})) (then (call $grow {p} (i32.const {size}))))"
        f" {store(f, sequence, _address(p, end, size), held)}"
        f" (i32.store offset=4 {p} (i32.add {end} (i32.const 1)))"
    )


def pop(f: Frame, sequence: Value) -> Value:
    """Remove and return the last element; the list's code is run once."""
    if sequence.type is UNKNOWN:
        return Value("(unreachable)", UNKNOWN)
    widen(f, sequence, item_of(sequence))
    ready, p = f.held(sequence)
    n = f.temp("i32")
    stop = f.give_up(wat.INDEX)
    ready += (
        f" (br_if {stop} (i32.eqz (local.tee {n} (i32.load offset=4 {p.code}))))"
        f" (i32.store offset=4 {p.code} (local.tee {n} (i32.sub (local.get {n}) (i32.const 1))))"
    )
    return load(f, sequence, ready, _address(p.code, f"(local.get {n})", _size(sequence)))


def empty(f: Frame, cell: Cell, room: int = 0) -> tuple[str, Value]:
    """Make a list without elements: the code that does, and the list as it can be read often."""
    kind = ListOf(cell)
    made = Value(f"(call $new (i64.const {room}) (i32.const {cell.item.size}))", kind)
    ready, p = f.held(made)
    if room:
        ready += f" (i32.store offset=4 {p.code} (i32.const 0))"
    return ready, p


def display(f: Frame, node: ast.List) -> Value:
    """Lower ``[a, b, c]``."""
    cell = f.cell(node)
    ready, p = empty(f, cell, len(node.elts))
    for element in node.elts:
        if isinstance(element, ast.Starred):
            raise Unsupported("a starred element")
        ready += " " + append(f, p, f.value(element))
    return Value(f"(block (result i32) {ready} {p.code})", p.type)


def comprehension(
    f: Frame, node: ast.ListComp, walk: Callable[[Frame, list[ast.comprehension], Callable[[], str]], str]
) -> Value:
    """Lower ``[x for ... in ... if ...]``.

    Args:
        f: The function.
        node: The comprehension.
        walk: Lowers its loops around the code that a function returns.
    """
    ready, p = empty(f, f.cell(node))
    loops = walk(f, node.generators, lambda: append(f, p, f.value(node.elt)))
    return Value(f"(block (result i32) {ready} {loops} {p.code})", p.type)


def joined(f: Frame, op: ast.operator, left: Value, right: Value) -> Value:
    """Lower ``list + list``, ``list * n`` and ``n * list``."""
    if isinstance(left.type, ListOf) and isinstance(right.type, ListOf) and isinstance(op, ast.Add):
        f.program.changed |= left.type.cell.unify(right.type.cell)
        return Value(f"(call $concat {left.code} {right.code} (i32.const {_size(left)}))", left.type)
    if isinstance(op, ast.Mult) and isinstance(right.type, ListOf) and not isinstance(left.type, ListOf):
        ready, times = f.held(f.coerce(left, INT))
        code = f"(call $repeat {right.code} {times.code} (i32.const {_size(right)}))"
        return Value(f"(block (result i32) {ready} {code})", right.type)
    if isinstance(op, ast.Mult) and isinstance(left.type, ListOf) and not isinstance(right.type, ListOf):
        times = f.coerce(right, INT)
        return Value(f"(call $repeat {left.code} {times.code} (i32.const {_size(left)}))", left.type)
    raise Unsupported(f"{type(op).__name__} of {left.type.name} and {right.type.name}")


def part(f: Frame, sequence: Value, node: ast.Slice) -> Value:
    """Lower ``a[i:j]``; always a copy, as in Python."""
    if node.step is not None:
        raise Unsupported("a slice with a step")
    if sequence.type is UNKNOWN:
        return sequence
    if isinstance(sequence.type, ListOf):
        item_of(sequence)
    start = f.coerce(f.value(node.lower), INT) if node.lower else integer(0)
    stop = f.coerce(f.value(node.upper), INT) if node.upper else integer((1 << 62) - 1)
    size = f"(i32.const {_size(sequence)})"
    return Value(f"(call $slice {sequence.code} {start.code} {stop.code} {size})", sequence.type)


def contains(f: Frame, sequence: Value, value: Value) -> str:
    """Lower ``x in list`` for integers and characters."""
    kind = item_of(sequence)
    if UNKNOWN in (kind, value.type):
        return f"(block (result i32) (drop {value.code}) (drop {sequence.code}) unreachable)"
    if kind not in (INT, CHAR) or value.type is not kind or sequence.type is BYTES:
        raise Unsupported(f"{value.type.name} in {sequence.type.name}")
    ready, p = f.held(sequence)
    sought, x = f.held(value)
    i, n, found = f.temp("i32"), f.fresh(), f.temp("i32")
    test = f"({kind.wasm}.eq {at(f, p, f'(local.get {i})').code} {x.code})"
    return (
        f"(block (result i32) {sought} {ready} (local.set {i} (i32.const 0)) (local.set {found} (i32.const 0))"
        f" (block $out{n} (loop $again{n} (br_if $out{n} (i32.ge_u (local.get {i}) (i32.load offset=4 {p.code})))"
        f" (if {test} (then (local.set {found} (i32.const 1)) (br $out{n})))"
        f" (local.set {i} (i32.add (local.get {i}) (i32.const 1))) (br $again{n}))) (local.get {found}))"
    )
