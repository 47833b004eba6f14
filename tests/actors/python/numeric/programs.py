"""Random numeric programs, for comparing what two implementations make of them."""

from __future__ import annotations

from hypothesis import strategies as st

EDGE_INTEGERS = (0, 1, -1, 2, -2, 3, -3, 7, 10, -7, 63, 64, 65, 2**31, -(2**31), 2**53, 2**53 + 1, 2**62, -(2**62),
                 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**64, 10**30)  # fmt: skip
EDGE_FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.5,
    3.0,
    1e16,
    -1e16,
    1e308,
    5e-324,
    float("inf"),
    float("-inf"),
    float("nan"),
)

integers = st.one_of(st.sampled_from(EDGE_INTEGERS), st.integers(-20, 20), st.integers())
floats = st.one_of(st.sampled_from(EDGE_FLOATS), st.floats(allow_nan=True, allow_infinity=True))
int_lists = st.one_of(
    st.lists(st.integers(-5, 9), min_size=4, max_size=7), st.lists(st.one_of(st.integers(-5, 9), integers), max_size=6)
)
float_lists = st.one_of(st.lists(floats, min_size=4, max_size=7), st.lists(floats, max_size=6))

_OPERATORS = {"int": ("+", "-", "*", "//", "%", ">>", "&", "|", "^"), "float": ("+", "-", "*", "/")}
_ATOMS = {
    "int": ("a", "b", "i", "t", "u", "len(xs)", "xs[i]", "xs[a]", "xs[-1]", "xs[t]", "G", "0", "1", "2", "3", "-1", "7",
            "64", "2**31", "2**53", "9223372036854775807", "(a == b)", "round(x)", "int(y)", "math.floor(x)"),
    "float": ("x", "y", "z", "fs[0]", "fs[i]", "fs[-2]", "H", "0.0", "0.5", "-1.5", "2.0", "1e300", "float('inf')",
              "float('nan')", "math.sqrt(x)", "sum(fs)", "sum([v for v in fs if v > x])"),
}  # fmt: skip
_COMPARISONS = st.sampled_from(("<", "<=", ">", ">=", "==", "!="))
_NAMES = {"int": "abtu", "float": "xyz"}
_kinds = st.sampled_from(("int", "int", "float"))


@st.composite
def expressions(draw: st.DrawFn, kind: str, depth: int = 3) -> str:
    """Draw an expression; one in a while is of the other kind than was asked for."""
    if draw(st.integers(0, 19)) == 0:
        kind = "float" if kind == "int" else "int"
    atom = st.sampled_from(_ATOMS[kind])
    if not depth:
        return draw(atom)
    inner = expressions(kind, depth - 1)
    other = expressions(draw(_kinds) if kind == "float" else "int", depth - 1)
    match draw(st.integers(0, 9)):
        case 0 | 1:
            return draw(atom)
        case 2 | 3 | 4 | 5:
            return f"({draw(inner)} {draw(st.sampled_from(_OPERATORS[kind]))} {draw(other)})"
        case 6:
            return f"({draw(st.sampled_from(('-', '+', '~') if kind == 'int' else ('-',)))}{draw(inner)})"
        case 7:
            return f"({draw(inner)} if {draw(conditions(depth - 1))} else {draw(inner)})"
        case 8:
            return f"{draw(st.sampled_from(('min', 'max')))}({draw(inner)}, {draw(inner)})"
        case _:
            form = st.sampled_from(("abs({})", "({} and {})", "({} or {})", "({} << (b & 15))", "({} ** 3)"))
            return draw(form).format(draw(inner), draw(inner))


@st.composite
def conditions(draw: st.DrawFn, depth: int) -> str:
    """Draw a condition."""
    left = draw(expressions(draw(_kinds), depth))
    test = f"{left} {draw(_COMPARISONS)} {draw(expressions(draw(_kinds), depth))}"
    match draw(st.integers(0, 5)):
        case 0:
            return f"{test} {draw(_COMPARISONS)} {draw(expressions(draw(_kinds), depth))}"
        case 1:
            return f"not {test}"
        case 2:
            return f"({test} {draw(st.sampled_from(('and', 'or')))} {left})"
        case 3:
            return f"({draw(expressions('int', 0))} in xs)"
    return test


@st.composite
def statements(draw: st.DrawFn, depth: int = 2, loops: bool = False) -> list[str]:
    """Draw a few statements, as lines."""
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(_kinds)
        name = draw(st.sampled_from(_NAMES[kind]))
        value = draw(expressions(kind, 2))
        match draw(st.integers(0, 14)):
            case 0 | 1 | 2:
                lines.append(f"{name} = {value}")
            case 3 | 4:
                lines.append(f"{name} {draw(st.sampled_from(_OPERATORS[kind][:3]))}= {value}")
            case 5:
                place = draw(st.sampled_from(("i", "0", "-1", "a", "t")))
                lines.append(f"{'xs' if kind == 'int' else 'fs'}[{place}] = {value}")
            case 6:
                lines.append(f"fs[i] {draw(st.sampled_from(('+', '*')))}= {draw(expressions('float', 1))}")
            case 7:
                lines.append(f"{'xs' if kind == 'int' else 'fs'}.append({value})")
            case 8:
                lines.append(draw(st.sampled_from(("t = xs.pop()", "t = xs.pop() - xs.pop()", "xs[0] += xs.pop()"))))
            case 9:
                lines.append(f"xs[0], xs[i] = xs[i], {draw(expressions('int', 1))}")
            case 10 | 11 if depth:
                lines.append(f"if {draw(conditions(1))}:")
                lines += ["    " + line for line in draw(statements(depth - 1, loops))]
                if draw(st.booleans()):
                    lines += ["else:", *("    " + line for line in draw(statements(depth - 1, loops)))]
            case 12 if depth:
                heads = ("for u in xs[:5]:", "for i in range(b % 4):", "for i, z in enumerate(fs[:4]):",
                         "for t in range(b, b + 9, 3):", "for u in reversed(xs):", "for t, z in zip(xs[:3], fs):",
                         "for j in range(a % 3, -2, -1):")  # fmt: skip
                lines += [draw(st.sampled_from(heads)), *("    " + line for line in draw(statements(depth - 1, True)))]
                if draw(st.booleans()):
                    lines.append(f"    {draw(st.sampled_from(('break', 'continue', 'xs = [b] * i')))}")
                    lines += ["else:", f"    {name} = {value}"]
            case 13:
                lines.append(f"ys = [v * 2 for v in xs if v != {draw(st.sampled_from(('0', '1', 'b')))}]; t = ys[0]")
            case _:
                lines.append("t, u = divmod(u, b)" if draw(st.booleans()) else "xs = xs[a:b] + [t] * 2 + [len(fs), i]")
    return lines


@st.composite
def programs(draw: st.DrawFn) -> str:
    """Draw a module with a function ``f(a, b, x, y, xs, fs)``."""
    body = draw(statements())
    result = draw(expressions(draw(_kinds), depth=2))
    lines = ["t = 0", "u = 1", "z = x", "for i in range(3):", *("    " + line for line in body), f"return {result}"]
    return (
        "import math\nG = 5\nH = 2.5\ndef f(a, b, x, y, xs, fs):\n" + "\n".join("    " + line for line in lines) + "\n"
    )
