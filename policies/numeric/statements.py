"""Statements, and whole functions made of them."""

from __future__ import annotations

import ast

from runvisor.policies.numeric import arithmetic, calls, expressions, lists, loops, wat
from runvisor.policies.numeric.frame import Frame, Program, Value
from runvisor.policies.numeric.types import INT, NONE, NUMBER, UNKNOWN, ListOf, TupleOf, Unsupported, same


def function(program: Program, name: str) -> str:
    """Lower one function.

    Raises:
        Unsupported: It does something that is not compiled.
    """
    f = Frame(program, name, expressions.lower)
    parameters = []
    for argument in f.node.args.args:
        local = f.variable(argument.arg)
        kind = f.types.variables.get(argument.arg, UNKNOWN)
        parameters.append(f"(param {local} {kind.wasm})")
        if kind is NUMBER:
            parameters.append(f"(param {local}t i32)")
    code = block(f, f.node.body)
    if not ends(f.node.body):
        program.widen_return(name, NONE)
        code += "\n(return)"
    if any(depth >= max(1, f.deepest) for depth in f.has_math):
        raise Unsupported("a mathematical function of the library in an innermost loop")
    taken = {part.split()[1] for part in parameters}
    own = " ".join(f"(local {local} {wasm})" for local, wasm in f.locals.items() if local not in taken)
    start = f"(local.set $poll (i32.const {wat.POLL_EVERY}))" if "$poll" in f.locals else ""
    for reason in sorted(f.reasons):
        code = f"(block $stop{reason}\n{code}\nunreachable)\n{wat.stop(reason)}"
    returned = " ".join(f"(result {wasm})" for wasm in calls.results(f.types.returns))
    number = list(program.types).index(name)
    return f"(func $f{number} {' '.join(parameters)} {returned}\n{own}\n{start}\n{code}\nunreachable)"


def ends(body: list[ast.stmt]) -> bool:
    """Whether control never leaves a block at its end."""
    last = body[-1]
    if isinstance(last, ast.Return | ast.Raise):
        return True
    if isinstance(last, ast.If):
        return bool(last.orelse) and ends(last.body) and ends(last.orelse)
    if isinstance(last, ast.While) and isinstance(last.test, ast.Constant) and last.test.value:
        return not _breaks(last.body)
    if isinstance(last, ast.For | ast.While) and last.orelse:
        return ends(last.orelse) and not _breaks(last.body)
    return False


def _breaks(body: list[ast.stmt]) -> bool:
    """Whether a loop's body leaves the loop; inner loops keep theirs."""
    for node in body:
        if isinstance(node, ast.Break):
            return True
        if isinstance(node, ast.If) and (_breaks(node.body) or _breaks(node.orelse)):
            return True
        if isinstance(node, ast.For | ast.While) and _breaks(node.orelse):
            return True
    return False


def block(f: Frame, body: list[ast.stmt]) -> str:
    """Lower statements in a row."""
    return "\n".join(_statement(f, node) for node in body)


def _statement(f: Frame, node: ast.stmt) -> str:
    match node:
        case ast.Assign():
            return _assign(f, node.targets, node.value)
        case ast.AnnAssign(value=ast.expr() as source, simple=1):
            return _assign(f, [node.target], source)
        case ast.AugAssign():
            return _augment(f, node)
        case ast.If():
            test = expressions.condition(f, node.test)
            other = f"\n(else\n{block(f, node.orelse)})" if node.orelse else ""
            return f"(if {test} (then\n{block(f, node.body)}){other})"
        case ast.For():
            walk = loops.iterate(f, node.iter)
            code = loops.repeat(
                f,
                walk.exhausted,
                lambda _: f"{loops.unpack(node.target, walk.item, f.assign)}\n{block(f, node.body)}",
                walk.advance,
                (lambda: block(f, node.orelse)) if node.orelse else None,
            )
            return f"{walk.setup}\n{code}"
        case ast.While():
            test = f"(i32.eqz {expressions.condition(f, node.test)})"
            otherwise = (lambda: block(f, node.orelse)) if node.orelse else None
            return loops.repeat(f, test, lambda _: block(f, node.body), "", otherwise)
        case ast.Return():
            return _return(f, node.value)
        case ast.Break():
            return f"(br {f.loops[-1][0]})"
        case ast.Continue():
            return f"(br {f.loops[-1][1]})"
        case ast.Raise():
            return f"(br {f.give_up(wat.RAISED)})"
        case ast.Assert():
            return f"(br_if {f.give_up(wat.RAISED)} (i32.eqz {expressions.condition(f, node.test)}))"
        case ast.Pass():
            return ""
        case ast.Expr(value=ast.Constant()):
            return ""
        case ast.Expr():
            value = f.value(node.value)
            left = 1 if value.type.wasm else len(calls.results(value.type))
            return f"{value.code} {'(drop) ' * left}"
    raise Unsupported(f"the statement {type(node).__name__}")


def _assign(f: Frame, targets: list[ast.expr], value: ast.expr) -> str:
    if len(targets) > 1:
        ready, held = f.held(f.value(value))
        return "\n".join([ready, *(_store(f, target, held, calls=True) for target in targets)])
    target = targets[0]
    if isinstance(target, ast.Tuple | ast.List):
        return _unpack(f, target.elts, value)
    return _store(f, target, f.value(value), calls=_calls(value) or _calls(target))


def _unpack(f: Frame, targets: list[ast.expr], value: ast.expr) -> str:
    """Assign several values at once: all are computed before any is stored."""
    if isinstance(value, ast.Tuple | ast.List):
        ready, items = "", [f.value(part) for part in value.elts]
        kept = []
        for item in items:
            code, held = f.held(item)
            ready += code + "\n"
            kept.append(held)
    elif isinstance(value, ast.Call) and _is_divmod(f, value):
        ready, x = f.held(f.value(value.args[0]))
        more, y = f.held(f.value(value.args[1]))
        kept = []
        for op in (ast.FloorDiv(), ast.Mod()):
            code, held = f.held(arithmetic.binary(f, op, x, y))
            more += "\n" + code
            kept.append(held)
        ready += more
    else:
        ready, kept = _taken_apart(f, f.value(value), len(targets))
    if len(kept) != len(targets):
        raise Unsupported("unpacking into another number of names")
    return ready + "\n".join(_store(f, target, item, calls=True) for target, item in zip(targets, kept, strict=True))


def _is_divmod(f: Frame, node: ast.Call) -> bool:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    return f.meaning(name) == "builtin:divmod" and len(node.args) == 2 and not node.keywords


def _taken_apart(f: Frame, value: Value, count: int) -> tuple[str, list[Value]]:
    """Take the parts of a tuple that a function returned, or of a list of the right length."""
    if isinstance(value.type, TupleOf):
        ready, kept = value.code, []
        for kind in reversed(value.type.items):
            tag = ""
            if kind is NUMBER:
                local = f.temp("i32")
                ready, tag = f"{ready} (local.set {local})", f"(local.get {local})"
            local = f.temp(kind.wasm)
            ready += f" (local.set {local})"
            kept.append(Value(f"(local.get {local})", kind, tag))
        return ready + "\n", kept[::-1]
    if value.type is UNKNOWN:
        return f"(drop {value.code})\n", [Value("(unreachable)", UNKNOWN)] * count
    ready, p = f.held(value)
    lists.item_of(value)
    ready += f" (br_if {f.give_up(wat.DOMAIN)} (i32.ne (i32.load offset=4 {p.code}) (i32.const {count})))\n"
    kept = []
    for i in range(count):
        code, held = f.held(lists.at(f, p, f"(i32.const {i})"))
        ready += code + "\n"
        kept.append(held)
    return ready, kept


def _calls(node: ast.expr) -> bool:
    """Whether evaluating it may change a list."""
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def _store(f: Frame, target: ast.expr, value: Value, *, calls: bool) -> str:
    if isinstance(target, ast.Name):
        return f.assign(target.id, value)
    if isinstance(target, ast.Tuple | ast.List):
        ready, kept = _taken_apart(f, value, len(target.elts))
        return ready + "\n".join(
            _store(f, name, item, calls=True) for name, item in zip(target.elts, kept, strict=True)
        )
    if not isinstance(target, ast.Subscript) or isinstance(target.slice, ast.Slice):
        raise Unsupported("this target of an assignment")
    first = ""
    if calls:
        first, value = f.held(value)
    sequence = f.value(target.value)
    index = f.value(target.slice)
    if sequence.type is UNKNOWN or index.type is UNKNOWN:
        return "unreachable"
    lists.widen(f, sequence, value.type)
    ready, address = lists.place(f, sequence, index)
    return f"{first} {ready} {lists.store(f, sequence, address, value)}"


def _augment(f: Frame, node: ast.AugAssign) -> str:
    if isinstance(node.target, ast.Name):
        if node.target.id not in f.scope.locals:
            raise Unsupported("changing a global")
        before = f.read(node.target.id)
        if isinstance(before.type, ListOf):
            raise Unsupported("changing a list in place by an operator")
        return f.assign(node.target.id, arithmetic.binary(f, node.op, before, f.value(node.value)))
    if not isinstance(node.target, ast.Subscript) or isinstance(node.target.slice, ast.Slice):
        raise Unsupported("this target of an assignment")
    first, sequence = f.held(f.value(node.target.value))
    second, index = f.held(f.value(node.target.slice))
    if sequence.type is UNKNOWN or index.type is UNKNOWN:
        return "unreachable"
    third, address = lists.place(f, sequence, index)
    fourth, before = f.held(lists.load(f, sequence, "", address))
    if isinstance(before.type, ListOf):
        raise Unsupported("changing a list in place by an operator")
    after = arithmetic.binary(f, node.op, before, f.value(node.value))
    fifth, after = f.held(after)
    lists.widen(f, sequence, after.type)
    if _calls(node.value):  # which may have made the list shorter, or moved it
        again, address = lists.place(f, sequence, Value(index.code, INT) if index.type is INT else index)
        fifth += f" {again}"
    return f"{first} {second} {third} {fourth} {fifth} {lists.store(f, sequence, address, after)}"


def _return(f: Frame, node: ast.expr | None) -> str:
    if isinstance(node, ast.Tuple):
        values = [f.value(part) for part in node.elts]
        if any(not value.type.wasm for value in values):
            raise Unsupported("a tuple of these")
        f.program.widen_return(f.name, TupleOf(tuple(value.type for value in values)))
        kind = f.types.returns
        assert isinstance(kind, TupleOf)
        values = [f.coerce(value, item) for value, item in zip(values, kind.items, strict=True)]
        return "".join(f"{v.code} {v.tag if v.type is NUMBER else ''} " for v in values) + "(return)"
    value = f.value(node) if node is not None else Value("", NONE)
    f.program.widen_return(f.name, value.type)
    if isinstance(value.type, TupleOf) and not same(value.type, f.types.returns):
        raise Unsupported("a tuple of changing types")
    if value.type is NONE or isinstance(value.type, TupleOf):
        return f"{value.code} (return)"
    value = f.coerce(value, f.types.returns)
    return f"{value.code} {value.tag if value.type is NUMBER else ''} (return)"
