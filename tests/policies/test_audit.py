"""The hash chain over audit records."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.audit import GENESIS, Event, seal, verify


def chain(size: int) -> tuple[list[str], str]:
    lines: list[str] = []
    head = GENESIS
    for index in range(size):
        line, head = seal(Event("execution", "execute", f"p{index}", float(index), {"n": index}), head, index)
        lines.append(line)
    return lines, head


def test_an_untouched_log_holds() -> None:
    lines, head = chain(5)
    assert verify(lines) is None
    assert verify(lines, head) is None
    assert verify(f"{line}\n" for line in lines) is None
    assert verify([]) is None
    assert verify([], GENESIS) is None


@given(st.data())
def test_an_edited_line_is_found(data: st.DataObject) -> None:
    lines, head = chain(4)
    index = data.draw(st.integers(0, 3))
    at = data.draw(st.integers(0, len(lines[index]) - 1))
    letter = data.draw(st.characters(codec="utf-8").filter(lambda letter: letter not in (lines[index][at], "\n")))
    lines[index] = lines[index][:at] + letter + lines[index][at + 1 :]
    assert verify(lines, head) is not None
    if index < 3:
        assert verify(lines) is not None


@given(st.permutations(range(4)), st.integers(0, 4))
def test_a_removal_a_swap_and_a_cut_are_found(order: list[int], kept: int) -> None:
    lines, head = chain(4)
    changed = [lines[index] for index in order][:kept]
    if changed != lines:
        assert verify(changed, head) is not None
    if changed != lines[: len(changed)]:
        assert verify(changed) is not None


def test_a_record_put_between_two_is_found() -> None:
    lines, _ = chain(3)
    extra, _ = seal(Event("denial", "refuse", "x", 0.0, {}), GENESIS, 1)
    assert verify([lines[0], extra, lines[1]]) == "record 1: it does not follow the record before it"


def test_the_last_record_is_bound_by_a_head_kept_elsewhere() -> None:
    lines, head = chain(2)
    edited = lines[-1].replace('"p1"', '"px"')
    assert verify([lines[0], edited]) is None  # nothing after it says otherwise
    assert verify([lines[0], edited], head) == "the last record is not the one that the head is of"
    assert verify(lines[:1], head) == "the last record is not the one that the head is of"


@given(
    st.dictionaries(
        st.text(), st.text() | st.integers() | st.floats() | st.binary() | st.lists(st.none() | st.text()), max_size=4
    )
)
def test_any_details_make_one_line_of_ascii(details: dict[str, Any]) -> None:
    line, head = seal(Event("lifecycle", "start", "p", 1.0, details), GENESIS, 0)
    assert line.isascii()
    assert "\n" not in line
    assert verify([line], head) is None
    assert json.loads(line)["details"].keys() == details.keys()


@pytest.mark.parametrize("line", ["", "[]", "null", "{", '{"index": 1}', "[" * 100_000, "\ud800", '{"index":0}'])
def test_what_is_no_record_is_named_and_raises_nothing(line: str) -> None:
    assert verify([line]) is not None


def test_huge_integers_in_details_do_not_stop_the_log() -> None:
    line, _ = seal(Event("execution", "execute", "p", 1.0, {"n": 10**6000}), GENESIS, 0)
    assert verify([line]) is None
