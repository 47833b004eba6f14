"""Source maps: reading what a compiler wrote, and refusing what it did not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.v8.places import of_stack, undone
from runvisor.actors.v8.source_map import SourceMap

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _encode(number: int) -> str:
    value = (-number << 1) | 1 if number < 0 else number << 1
    text = ""
    while True:
        digit, value = value & 31, value >> 5
        text += _DIGITS[digit | (32 if value else 0)]
        if not value:
            return text


Places = list[list[tuple[int, int, int]]]


def _written(lines: Places) -> str:
    line = column = 0
    rows = []
    for segments in lines:
        compiled, parts = 0, []
        for at, source_line, source_column in segments:
            parts.append("".join(map(_encode, (at - compiled, 0, source_line - line, source_column - column))))
            compiled, line, column = at, source_line, source_column
        rows.append(",".join(parts))
    return ";".join(rows)


_SEGMENTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 5000), st.integers(0, 500)), max_size=6)


@given(st.lists(_SEGMENTS.map(lambda s: sorted({item[0]: item for item in s}.values())), max_size=8))
def test_what_was_written_is_read(lines: Places) -> None:
    read = SourceMap(_written(lines))
    for number, segments in enumerate(lines, 1):
        for at, source_line, source_column in segments:
            assert read.original(number, at + 1) == (source_line + 1, source_column + 1)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = SourceMap(text)
    except ValueError:
        return
    read.original(1, 1)


def test_places_before_any_mapping_have_no_original() -> None:
    assert SourceMap("").original(1, 1) is None
    assert SourceMap("IAAA").original(1, 2) is None
    assert SourceMap("AAAA").original(7, 1) is None


def test_a_number_that_never_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="not a source map"):
        SourceMap("g" * 100 + "A")


@given(st.lists(st.tuples(st.just(1), st.integers(1, 50), st.integers(0, 9), st.integers(0, 9))), st.integers(1, 99))
def test_edits_never_give_an_impossible_column(edits: list[tuple[int, int, int, int]], column: int) -> None:
    assert undone(1, column, edits) >= 1


def test_only_the_users_frames_are_told() -> None:
    stack = "Error: at x (task.js:9:9)\n    at f (task.js:3:20)\n    at g (<anonymous>:1:1)\n    at task.js:4:2"
    assert of_stack(stack, "task.js", [(3, 1, 8, 0)]) == ("3:12", "    at f (task.js:3:12)\n    at task.js:4:2")
