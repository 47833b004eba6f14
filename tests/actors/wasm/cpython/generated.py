"""Generated programs: loops, functions, containers, text and the standard library, with errors among them."""

from __future__ import annotations

from hypothesis import strategies as st

_NAMES = st.sampled_from(["a", "b", "c"])
_WORDS = st.sampled_from(["''", "'ab'", "'Hello w\u00f6rld'", "'3'", "'x,y,z'"])
_NUMBERS = st.sampled_from(
    ["0", "1", "-1", "7", "255", "10**9", "2**31", "2**63", "-2**40", "0.5", "-1.25", "1e300", "3.0"]
)
_LISTS = st.sampled_from(["[]", "[3, 1, 2]", "[1, 'a', None]", "[[1], [2, 3]]", "list(range(5))", "[0.1, 0.2]"])
_DICTS = st.sampled_from(["{}", "{'k': 1, 'm': [2]}", "{1: 'x', 2: 'y'}", "dict(zip('abc', range(3)))"])
_ATOMS = _NAMES | _NUMBERS | _WORDS | _LISTS | _DICTS | st.sampled_from(["True", "None", "(1, 2)", "b'\\x00z'"])

_BINARY = st.sampled_from("+ - * / // % & | ^ << == != < <= > and or in is".split()).map(str)
_CALLS = st.sampled_from(
    "len str repr int float bool list tuple sorted reversed abs min max round type dict enumerate iter any all bin hex "
    "chr ord".split()
)
_METHODS = st.sampled_from(
    [".upper()", ".split(',')", ".strip()", ".items()", ".keys()", ".get('k')", ".index(1)", ".count(1)", ".copy()",
     ".encode()",
     ".title()", "[0]", "[-1]", "[::-1]", "['k']", ".is_integer()", ".bit_length()",
     ".join(['p', 'q'])",
     ".replace('a', 'b')", ".find('b')", ".hex()", ".as_integer_ratio()", ".zfill(6)", ".isdigit()"]
)  # fmt: skip
_LIBRARY = st.sampled_from(
    ["math.floor({})", "math.sqrt({})", "math.isqrt({})", "math.gcd({}, 12)", "json.dumps({})", "json.loads({})",
     "list(itertools.accumulate({}))", "list(itertools.combinations({}, 2))",
     "Counter({}).most_common(2)",
     "re.findall('[a-z]+', {})", "statistics.median({})", "statistics.mean({})", "Fraction({})", "str(Decimal({}))",
     "hashlib.sha256({}).hexdigest()", "base64.b64encode({})", "textwrap.wrap({}, 3)",
     "functools.reduce(lambda p, q: p + q, {})",
     "heapq.nsmallest(2, {})", "copy.deepcopy({})", "html.escape({})", "quote({})", "math.comb({}, 3)", "math.fsum({})"]
)  # fmt: skip
_FORMATS = st.sampled_from(["{}", "{:>8}", "{:.3f}", "{:,}", "{:x}", "{!r}", "{:e}", "{:08.2f}", "{:+d}"])

_HEAD = """\
import base64, copy, functools, hashlib, heapq, html, itertools, json, math, re, statistics, textwrap
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from urllib.parse import quote
a, b, c = 1, 'text', [1, 2, 3]
"""


def _expressions() -> st.SearchStrategy[str]:
    def wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds(lambda x, op, y: f"({x} {op} {y})", inner, _BINARY, inner),
            st.builds(lambda f, x: f"{f}({x})", _CALLS, inner),
            st.builds(lambda x, m: f"({x}){m}", inner, _METHODS),
            st.builds(lambda f, x: f.format(x), _LIBRARY, inner),
            st.builds(lambda f, x: f"{f!r}.format({x})", _FORMATS, inner),
            st.builds(lambda x, y: f"[{x}, {y}]", inner, inner),
            st.builds(lambda x, y: f"{{'p': {x}, 'q': {y}}}", inner, inner),
            st.builds(lambda x, y: f"[{x} for i in {y}]", inner, inner),
            st.builds(lambda x, y, z: f"({x} if {y} else {z})", inner, inner, inner),
            st.builds(lambda x: f"(lambda v: {x})(2)", inner),
        )

    return st.recursive(_ATOMS, wider, max_leaves=6)


def _statements() -> st.SearchStrategy[list[str]]:
    simple = st.one_of(
        st.builds(lambda n, x: [f"{n} = {x}"], _NAMES, _expressions()),
        st.builds(lambda n, x: [f"{n} += {x}"], _NAMES, _expressions()),
        st.builds(lambda x: [f"print({x})"], _expressions()),
        st.builds(lambda x: [f"assert {x}"], _expressions()),
    )

    def wider(inner: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
        return st.one_of(
            st.builds(lambda x, body: [f"if {x}:", *_indented(body)], _expressions(), inner),
            st.builds(lambda x, body: [f"for i in {x}:", *_indented(body)], _expressions(), inner),
            st.builds(lambda body: ["for i in range(3):", *_indented(body)], inner),
            st.builds(
                lambda body, other: [
                    "try:",
                    *_indented(body),
                    "except (TypeError, ValueError, LookupError):",
                    *_indented(other),
                ],
                inner,
                inner,
            ),
            st.builds(
                lambda body, n, x: ["def f(v, w=2):", *_indented(body), f"    return {x}", f"{n} = f({n})"],
                inner.map(lambda body: ["global a, b, c", *body]),
                _NAMES,
                _expressions(),
            ),
            st.builds(lambda one, two: [*one, *two], inner, inner),
        )

    return st.recursive(simple, wider, max_leaves=5)


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def programs() -> st.SearchStrategy[str]:
    """Return programs that end, with a value or with an error."""
    return st.builds(lambda body, last: _HEAD + "\n".join([*body, last]), _statements(), _expressions())
