"""Types join upwards only, and lists that may be one list share their element type."""

from __future__ import annotations

import pytest

from runvisor.policies.numeric.types import (
    BOOL,
    FLOAT,
    INT,
    NUMBER,
    UNKNOWN,
    Cell,
    ListOf,
    Type,
    Unsupported,
    join,
    parse,
    same,
)


@pytest.mark.parametrize(
    ("left", "right", "joined", "wider"),
    [
        (UNKNOWN, INT, INT, True),
        (INT, UNKNOWN, INT, False),
        (INT, INT, INT, False),
        (INT, FLOAT, NUMBER, True),
        (FLOAT, INT, NUMBER, True),
        (NUMBER, FLOAT, NUMBER, False),
        (BOOL, BOOL, BOOL, False),
    ],
)
def test_what_two_types_join_to(left: Type, right: Type, joined: Type, wider: bool) -> None:
    assert join(left, right) == (joined, wider)


@pytest.mark.parametrize(("left", "right"), [(BOOL, INT), (BOOL, FLOAT), (INT, ListOf(Cell(INT)))])
def test_what_cannot_be_one_name(left: Type, right: Type) -> None:
    with pytest.raises(Unsupported, match="a value that is"):
        join(left, right)


def test_lists_that_join_are_widened_and_mutated_together() -> None:
    ints, floats = ListOf(Cell(INT)), ListOf(Cell(FLOAT))
    kind, changed = join(ints, floats)
    assert changed
    assert same(ints, floats)
    assert kind.name == floats.name == "list[number]"
    assert floats.cell.mutate()
    assert ints.cell.mutated
    assert not join(ints, floats)[1]


@pytest.mark.parametrize("text", ["int", "bool", "str", "list[float]", "list[list[unknown]]"])
def test_a_signature_names_its_type(text: str) -> None:
    assert parse(text).name == text
