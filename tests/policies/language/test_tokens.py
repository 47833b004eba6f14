"""Cutting code of any language into tokens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.policies.language.tokens import tokens, word_hash

WILD = st.text() | st.text("\"'`/*#\\\n ab1=.(){}", max_size=200)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("'abc'", ["\n", "'"]),
        ("'c'", ["\n", "''"]),
        ('f"{x}"', ["\n", "f", '"']),
        ('"""a\nb"""', ["\n", '"""']),
        ("`a\n${b}`", ["\n", "`"]),
        ("x // y z", ["\n", "x", "//"]),
        ("/* y\nz */ x", ["\n", "/*", "x"]),
        ("# y z", ["\n", "#"]),
        ("#include <a.h>", ["\n", "#include", "<", "a", ".h", ">"]),
        ("don't", ["\n", "don", "'", "t"]),
        ("a::b->c", ["\n", "a", "::", "b", "->", "c"]),
        ("\tx\n    y", ["\n\t", "x", "\n    ", "y"]),
    ],
)
def test_strings_and_comments_leave_only_their_marks(text: str, left: list[str]) -> None:
    assert tokens(text) == left


def test_names_of_a_like_case_have_one_shape_and_keywords_their_own() -> None:
    shape = {word: word_hash(word) & 0xFFFFFFFF for word in ("total", "sum", "Total", "return", "12", "0x1f")}
    assert shape["total"] == shape["sum"]
    assert shape["12"] == shape["0x1f"]
    assert len(set(shape.values())) == 4


@given(WILD)
@settings(deadline=None)
def test_each_character_is_read_at_most_once(text: str) -> None:
    found = tokens(text)
    assert sum(map(len, found)) <= len(text) + 1
    assert max(map(len, found)) <= 25
    assert all(0 <= word_hash(token) < 1 << 64 for token in found)
