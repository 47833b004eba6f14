"""Families and features: alike code shares them, hostile code does no harm."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.scheduling.base import MAX_NAME_CHARS
from runvisor.policies.scheduling.families import family_of
from runvisor.policies.scheduling.features import FEATURES, asked_by, features_of
from runvisor.policies.scheduling.sketch import sketch_of
from runvisor.policies.values import Value

SUM = "def main(inputs):\n    total = 0\n    for x in range(1000):\n        total += x\n    return total\n"


@pytest.mark.parametrize(
    ("code", "family"),
    [
        ("1", "python:xs"),
        ("x" * 257, "python:s"),
        ("x" * 2049, "python:m"),
        ("x" * 16_385, "python:l"),
        (SUM, "python:xs:l1.1:c1:e3"),
        ("import numpy as np\nfrom json import loads\nnp.sum(1)", "python:xs:c1:json+numpy"),
        (bytes(16_385), "python:l"),
    ],
)
def test_a_family_is_language_size_shape_and_imports(code: str | bytes, family: str) -> None:
    assert family_of("python", code) == family


CALLED = "def f(n):\n    return sum(x % 1000003 for x in range(n))\nf({n})"


def test_what_the_last_line_asks_for_tells_the_sizes_of_one_program_apart() -> None:
    small, large = CALLED.replace("{n}", "200"), CALLED.replace("{n}", "500_000")
    assert family_of("python", small) != family_of("python", large)
    assert features_of("python", small) != features_of("python", large)


def test_what_the_inputs_ask_for_counts_as_if_it_were_written_out() -> None:
    code = CALLED.replace("{n}", "n")
    families = [family_of("python", code, asked_by({"n": n, "mode": "fast"})) for n in (200, 210, 500_000)]
    assert families[0] == families[1] != families[2]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text(max_size=3), inner, max_size=10),
        max_leaves=20,
    )
)
def test_whatever_the_inputs_are_what_they_ask_for_is_a_bounded_number(inputs: Value) -> None:
    asked = asked_by(inputs)
    assert 0 <= asked <= 8 * 62.1
    assert len(family_of("python", "main(9)", asked)) <= MAX_NAME_CHARS


def test_names_and_small_numbers_do_not_matter_but_loops_and_large_numbers_do() -> None:
    assert family_of("python", SUM) == family_of("python", SUM.replace("total", "result").replace("1000", "2500"))
    assert family_of("python", SUM) != family_of("python", SUM.replace("1000", "10**6"))
    assert family_of("python", SUM) != family_of("python", SUM.replace("total += x", "for y in x: total += y"))
    assert family_of("python", SUM) != family_of("javascript", SUM)


@pytest.mark.parametrize(
    ("code", "nesting"),
    [
        ("for i in a:\n  for j in b:\n    while c: pass\nfor k in d: pass", 3),
        ("for (;;) {\n  for (;;) {\n  }\n}\n", 2),
        ("for i in a: pass\nfor i in a: pass", 1),
        ("before = 1\nforget()", 0),
    ],
)
def test_loops_nest_as_they_are_indented(code: str, nesting: int) -> None:
    assert sketch_of(code).nesting == nesting


@pytest.mark.parametrize(
    ("number", "magnitude"),
    [
        ("1000", 3),
        ("1_000_000", 6),
        ("10**7", 7),
        ("1e6", 6),
        ("0.123456789", 0),
        ("x1234567", 0),
        ("99", 0),
        ("9" * 99, 12),
    ],
)
def test_the_largest_whole_number_counts(number: str, magnitude: int) -> None:
    assert sketch_of(f"f(5, {number})").magnitude == magnitude


@given(st.text(max_size=3000) | st.binary(max_size=100), st.integers(-5, 2**63))
def test_whatever_the_code_a_family_is_a_short_plain_name_and_features_are_moderate(
    code: str | bytes, input_bytes: int
) -> None:
    family = family_of("python", code)
    assert 0 < len(family) <= MAX_NAME_CHARS
    assert family.isascii()
    assert family.isprintable()
    assert family == family_of("python", code)
    features = features_of("python", code, input_bytes)
    assert len(features) == len(FEATURES)
    assert all(math.isfinite(number) and abs(number) < 40 for number in features)


def test_a_name_stays_short_with_the_longest_imports_and_language() -> None:
    code = "\n".join(f"import {letter * 60}" for letter in "abcdef")
    assert len(family_of("a-language-with-a-name", code)) <= MAX_NAME_CHARS


def test_more_work_is_more_in_the_features() -> None:
    small, large = features_of("python", SUM), features_of("python", SUM.replace("1000", "10**7"), 10**6)
    assert large[FEATURES.index("log_literal")] > small[FEATURES.index("log_literal")]
    assert large[FEATURES.index("log_input")] > small[FEATURES.index("log_input")]
    assert features_of("python", "import numpy")[FEATURES.index("numpy")] == 1.0
