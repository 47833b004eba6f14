"""Whatever a numeric function is given, it does what CPython does: value, type, error, changed lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.actors.python.numeric import programs
from tests.actors.python.numeric.twins import Outcome, Twins

INTEGER_OPERATORS = ("+", "-", "*", "//", "%", "/", "&", "|", "^", ">>")
FLOAT_OPERATORS = ("+", "-", "*", "/")
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_functions: dict[str, Twins] = {}
_Test = Callable[..., None]


def examples(*strategies: st.SearchStrategy[Any]) -> Callable[[_Test], _Test]:
    """As ``given``; an example that compiles may take its time."""
    return lambda test: settings(deadline=None, max_examples=60)(given(*strategies)(test))


@pytest.fixture(scope="module", autouse=True)
def _every_function_was_really_compiled() -> Iterator[None]:
    """Agreement proves nothing about what was never accelerated."""
    yield
    idle = [source for source, made in _functions.items() if not made.report["calls_accelerated"]]
    assert not idle, [(source, _functions[source].report) for source in idle]


def twins(body: str, parameters: str = "a, b", prelude: str = "") -> Twins:
    """Return both versions of ``f``, made once for all examples; its body loops, so that it is compiled."""
    lines = "\n".join("    " + line for line in body.splitlines())
    source = f"import math\n{prelude}\ndef f({parameters}):\n    for _ in range(1):\n        pass\n{lines}\n"
    if source not in _functions:
        _functions[source] = Twins(source)
    return _functions[source]


@pytest.mark.parametrize("operator", INTEGER_OPERATORS)
@examples(programs.integers, programs.integers)
def test_operators_of_integers(operator: str, a: int, b: int) -> None:
    fresh = min(abs(b), 70) * (1 if b > 0 else -1) if operator == ">>" else b
    twins(f"return a {operator} b").agree("f", a, fresh)


@examples(programs.integers)
def test_operators_with_constants(a: int) -> None:
    for other in ("1", "-1", "10**18", "2**63 - 1", "3"):
        for form in ("a + {}", "a - {}", "{} - a", "a * {}", "{} + a", "a << {} % 5", "a ** 2", "-a", "~a"):
            twins(f"return {form.format(f'({other})')}", "a").agree("f", a)


@examples(programs.integers, st.integers(-3, 80))
def test_shifts_to_the_left(a: int, b: int) -> None:
    twins("return a << b").agree("f", a, b)


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 8, -1, -2, -3, 10**9 + 7, 2**31, 2**62, -(2**63)])
@examples(programs.integers)
def test_division_by_constants(divisor: int, a: int) -> None:
    twins(f"return a // ({divisor}), a % ({divisor})", "a").agree("f", a)
    twins(f"q, r = divmod(a, {divisor})\nreturn q, r", "a").agree("f", a)


@pytest.mark.parametrize("operator", FLOAT_OPERATORS)
@examples(st.one_of(programs.floats, programs.integers), st.one_of(programs.floats, programs.integers))
def test_operators_of_floats_and_integers_mixed(operator: str, a: float, b: float) -> None:
    twins(f"return a {operator} b").agree("f", a, b)


@pytest.mark.parametrize("operator", ["//", "%", "**"])
@examples(programs.floats, st.one_of(programs.floats, st.integers(-40, 40)))
def test_operators_of_floats_that_ask_the_library(operator: str, a: float, b: float) -> None:
    twins(f"s = a\nfor i in range(2):\n    s = a {operator} b\n    for j in range(3):\n        pass\nreturn s").agree(
        "f", a, b
    )


@pytest.mark.parametrize("operator", COMPARISONS)
@examples(st.one_of(programs.floats, programs.integers), st.one_of(programs.floats, programs.integers))
def test_comparisons_are_exact_also_between_integers_and_floats(operator: str, a: float, b: float) -> None:
    twins(f"return a {operator} b").agree("f", a, b)


@pytest.mark.parametrize("form", ["a == b", "a < b", "a >= b", "a / c", "a in [c]", "max(a, b)", "a + b"])
@examples(st.integers(2**53 - 3, 2**53 + 3), st.integers(2**53 - 3, 2**53 + 3))
def test_integers_that_no_float_holds(form: str, a: int, c: int) -> None:
    twins(f"return {form}", "a, b, c").agree("f", a, float(c), c)
    twins("s = 0.5\ns = a\nreturn s, s - c", "a, c").agree("f", a, c)


@examples(st.integers(-3, 3), st.integers(-3, 3))
def test_an_integer_zero_has_no_sign_even_where_floats_may_come(a: int, b: int) -> None:
    twins("s = 0.5\ns = a\nt = s * b\nreturn t, t * 1.0, -s * 1.0, -t + -0.0").agree("f", a, b)


@examples(st.one_of(programs.floats, programs.integers))
def test_functions_of_one_number(a: float) -> None:
    for call in ("int(a)", "float(a)", "round(a)", "abs(a)", "bool(a)", "-a", "math.sqrt(a)", "math.floor(a)",
                 "math.ceil(a)"):  # fmt: skip
        twins(f"return {call}", "a").agree("f", a)


@examples(programs.floats, programs.floats, programs.floats)
def test_min_and_max_keep_the_first_also_beside_nan(a: float, b: float, c: float) -> None:
    twins("return min(a, b, c), max(a, b, c)", "a, b, c").agree("f", a, b, c)


@examples(st.booleans(), st.booleans(), st.integers(-3, 3))
def test_bools_stay_bools_and_count_as_integers(a: bool, b: bool, c: int) -> None:
    twins("return a & b, a | b, a ^ b, a + b, a * c, not a, a < c, -a", "a, b, c").agree("f", a, b, c)


@examples(programs.int_lists, st.integers(-8, 8), programs.integers)
def test_lists_are_read_and_written_by_any_index(xs: list[int], i: int, value: int) -> None:
    twins("old = a[i]\na[i] = value\nreturn old", "a, i, value").agree("f", xs, i, value)


@examples(programs.int_lists, st.integers(-9, 9), st.integers(-9, 9))
def test_slices_are_copies(xs: list[int], i: int, j: int) -> None:
    twins("s = a[i:j]\ns.append(1)\nreturn s, a[i:], a[:j]", "a, i, j").agree("f", xs, i, j)


@examples(programs.float_lists, programs.floats)
def test_lists_grow_and_shrink_for_the_caller_too(xs: list[float], value: float) -> None:
    body = "a.append(value)\nt = a.pop()\nfor i in range(20):\n    a.append(t + i)\na.pop()\nreturn a"
    twins(body, "a, value").agree("f", xs, value)


@examples(st.lists(st.one_of(programs.floats, st.integers(-(2**54), 2**54)), max_size=5))
def test_lists_may_hold_integers_beside_floats(xs: list[float]) -> None:
    body = "t = 0\nfor x in a:\n    t += x\n    a[0] = t * 2\nreturn t"
    twins(body, "a").agree("f", xs)


@examples(st.lists(programs.int_lists, max_size=4), st.integers(-2, 4), st.integers(-2, 4))
def test_rows_of_different_lengths(rows: list[list[int]], i: int, j: int) -> None:
    twins("rows[i][j] += 1\nrows.append([i, j])\nreturn rows[-1][0] + len(rows[0])", "rows, i, j").agree(
        "f", rows, i, j
    )


@examples(st.booleans(), programs.int_lists.filter(bool))
def test_two_names_of_one_list_stay_one_list(same: bool, xs: list[int]) -> None:
    other = xs if same else list(xs)
    twins("a[0] = 7\nb.append(a[0])\nreturn a[-1], len(b)").agree("f", xs, other)
    twins("b[0] = a[0] % 9 + 1\nreturn a[0]").agree("f", xs, other)
    twins("for row in b:\n    row.append(1)\nreturn len(a[0])").agree("f", [xs, other], [xs, other])
    rows = [xs, other]
    twins("for row in b:\n    row.append(1)\nreturn len(a[0])").agree("f", rows, rows)
    pair = [xs, other]
    twins("p[0][0] = 5\np[1].append(p[0][0])\nreturn q[0]", "p, q").agree("f", pair, xs)


def test_a_returned_argument_is_the_very_object() -> None:
    made = twins("b = [a]\nb[0].append(1)\nreturn b[0]", "a")
    given_list: list[int] = [3]
    assert made.fast["f"](given_list) is given_list
    assert given_list == [3, 1]
    assert made.report["calls_accelerated"] == 1


@examples(st.lists(programs.integers, max_size=5), st.lists(programs.floats, max_size=5))
def test_sums_and_quantifiers(xs: list[int], fs: list[float]) -> None:
    twins("return sum(a), sum(b), sum(x * 2 for x in a if x), any(x < 0 for x in b), all(x for x in a)").agree(
        "f", xs, fs
    )


@examples(st.text(max_size=6), st.text(max_size=6), st.integers(-4, 7))
def test_strings_and_bytes_are_read_by_character(a: str, b: str, i: int) -> None:
    body = "n = 0\nfor x, y in zip(a, b):\n    n += x == y\n    n += ord(x)\nreturn n, a[i], a[i] < 'b'"
    twins(body, "a, b, i").agree("f", a, b, i)
    twins("return sum(a), a[i]", "a, i").agree("f", a.encode(errors="replace"), i)


@examples(st.integers(-6, 6), st.integers(-6, 6), st.integers(-3, 3))
def test_ranges_in_all_directions(start: int, stop: int, step: int) -> None:
    body = (
        "s = []\nfor i in range(a, b, c):\n    s.append(i)\nfor j in reversed(range(a, b)):\n    s.append(j)\nreturn s"
    )
    twins(body, "a, b, c").agree("f", start, stop, step)


@examples(st.integers(-3, 3), st.integers(0, 3))
def test_literals_that_are_walked(a: int, n: int) -> None:
    body = (
        "t = 0\nfor k in range(n):\n    for i in (-1, 0, 1):\n        for j in [a, 2, k]:\n            t += i * j * k\n"
        "    for x in (0.5, -1):\n        t += x\n    for u, v in zip([1, 2], (n, 3)):\n        t -= u * v\nreturn t"
    )
    twins(body, "a, n").agree("f", a, n)


@examples(st.lists(st.integers(0, 3), max_size=4))
def test_a_list_that_changes_while_it_is_walked(xs: list[int]) -> None:
    body = (
        "n = 0\nfor x in a:\n    n += 1\n"
        "    if x == 1 and n < 9:\n        a.append(x)\n    if x == 2:\n        a.pop()\nreturn n"
    )
    twins(body, "a").agree("f", xs)


@examples(st.integers(0, 3), st.lists(st.integers(-2, 2), max_size=3))
def test_a_name_without_a_value_is_the_same_error(n: int, xs: list[int]) -> None:
    twins("for i in range(n):\n    last = i\nreturn last + i", "n").agree("f", n)
    twins(
        "for x in xs:\n    if x > 0:\n        found = x\n        break\nelse:\n    return -1\nreturn found", "xs"
    ).agree("f", xs)


@examples(st.integers(-2, 12))
def test_an_exception_of_the_function_has_its_type_and_words(n: int) -> None:
    body = (
        "a = [0] * n\nfor i in range(n):\n    a[i] = i\n    if i == 5:\n        raise ValueError(f'no {i}')\n"
        "assert n > 0, 'n'\nreturn a"
    )
    twins(body, "n").agree("f", n)


def test_nothing_is_committed_by_a_call_that_fell_back() -> None:
    made = twins("a[0] = 1\na.append(a[0])\na[n] = 9\nreturn a", "a, n")
    made.agree("f", [5, 6], 2)
    outcome = made.agree("f", [5, 6], 30)
    assert outcome.error == ("IndexError", "list assignment index out of range")
    assert outcome.arguments == ("list", ("list", ("int", 1), ("int", 6), ("int", 1)), ("int", 30))
    assert made.report["fallbacks"] == {"f: an index out of range": 1}


@examples(st.integers(0, 14), st.integers(0, 3))
def test_recursion_and_calls_among_functions(n: int, m: int) -> None:
    source = (
        "def even(n):\n    return True if n == 0 else odd(n - 1)\n"
        "def odd(n):\n    return False if n == 0 else even(n - 1)\n"
        "def ackermann(m, n):\n    if m == 0:\n        return n + 1\n"
        "    if n == 0:\n        return ackermann(m - 1, 1)\n"
        "    return ackermann(m - 1, ackermann(m, n - 1))\n"
        "def pair(n):\n    return n // 2, even(n)\n"
        "def f(n):\n    t = 0\n    for i in range(n):\n        half, flag = pair(i)\n"
        "        t += half * (1 if flag else -1)\n    return t\n"
    )
    made = _functions.setdefault(source, Twins(source))
    made.agree("f", n)
    made.agree("ackermann", min(m, 2), min(n, 4))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return a // b", "a division by zero"),
        ("return a % b", "a division by zero"),
        ("return a / b", "a division by zero"),
        ("return (-9223372036854775807 - 1 + b) // (a - 8 + b)", "an integer beyond 64 bits"),
    ],
)
def test_why_a_call_fell_back_is_told(body: str, reason: str) -> None:
    made = Twins(f"def f(a, b):\n    for i in range(2):\n        pass\n    {body}\n")
    made.agree("f", 7, 0)
    assert made.report["fallbacks"] == {f"f: {reason}": 1}


def test_a_recursion_without_end_is_a_recursion_error() -> None:
    made = Twins("def f(n):\n    return 1 + f(n + 1)\n")
    assert made.agree("f", 0).error is not None
    assert "f: recursion depth" in made.report["fallbacks"]


@pytest.mark.parametrize(
    "argument", [1, 2.5, True, [1, 2], [1.5], [], [[1], [2.5]], "text", b"bytes", None, {}, 10**40]
)
def test_any_type_may_come_for_any_parameter(argument: Any) -> None:
    made = twins("t = a + a\nfor i in range(3):\n    t = t + a\nreturn t", "a")
    made.agree("f", argument)
    made.agree("f", argument)


def test_a_local_name_hides_a_builtin() -> None:
    twins("sum = 0\nfor x in a:\n    sum += x\nreturn sum + g(a)", "a", "def g(b):\n    return sum(b)").agree(
        "f", [1, 2]
    )
    hidden = Twins(
        "def f(a, range):\n    for i in range(a):\n        g(i)\n    return i\ndef g(n):\n    return sum(range(n))"
    )
    hidden.agree("f", 3, 4)
    shadowed = Twins("def f(a):\n    return [len(len) for len in a] + [g(a)]\ndef g(a):\n    return len(a)\n")
    shadowed.agree("f", [[1], [2]])


def test_results_that_nobody_takes_are_dropped() -> None:
    prelude = "def g(x):\n    return x if x else 0.5\ndef h(x):\n    return x, 0.5"
    twins("g(a)\nh(a)\n[a][0]\nreturn a", "a", prelude).agree("f", 3)


def test_globals_go_in_as_they_are_now() -> None:
    made = twins(
        "t = 0\nfor i in range(n):\n    t += STEP * TABLE[i % 2]\n    TABLE[0] += 1\nreturn t",
        "n",
        "STEP = 3\nTABLE = [1, 2]",
    )
    for step in (3, 4, 2.5, 10**30, "x"):
        for namespace in (made.fast, made.plain):
            namespace["STEP"] = step
            namespace["TABLE"] = [1, 2]
        made.agree("f", 4)
        assert made.fast["TABLE"] == made.plain["TABLE"]
    assert made.report["calls_accelerated"] >= 2


def test_a_replaced_builtin_or_function_is_seen() -> None:
    made = twins("t = 0\nfor i in range(n):\n    t += g(abs(-i))\nreturn t", "n", "def g(x):\n    return x + 1")
    made.agree("f", 5)
    for namespace in (made.fast, made.plain):
        namespace["abs"] = lambda x: 100
    assert made.agree("f", 5).value == ("int", 505)
    for namespace in (made.fast, made.plain):
        exec("def g(x):\n    return x * 1000", namespace)
    assert made.agree("f", 5).value == ("int", 500_000)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    programs.programs(),
    programs.integers,
    st.integers(-9, 9),
    programs.floats,
    programs.floats,
    programs.int_lists,
    programs.float_lists,
)
def test_random_programs(source: str, a: int, b: int, x: float, y: float, xs: list[int], fs: list[float]) -> None:
    try:
        made = Twins(source)
    except SyntaxError:
        return
    ours, theirs = made.both("f", a, b, x, y, xs, fs)
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(deadline=None, max_examples=2000, suppress_health_check=list(HealthCheck))
@given(
    programs.programs(),
    programs.integers,
    st.integers(-9, 9),
    programs.floats,
    programs.floats,
    programs.int_lists,
    programs.float_lists,
)
def test_many_random_programs(source: str, a: int, b: int, x: float, y: float, xs: list[int], fs: list[float]) -> None:
    made = Twins(source)
    ours, theirs = made.both("f", a, b, x, y, xs, fs)
    assert ours == theirs


def test_outcomes_tell_equal_numbers_of_different_types_apart() -> None:
    from tests.actors.python.numeric.twins import exact

    assert exact(1) != exact(1.0) != exact(True)
    assert exact(0.0) != exact(-0.0)
    assert exact([math.nan]) == exact([math.nan])
    assert Outcome(exact(1), None, ()) != Outcome(exact(True), None, ())
