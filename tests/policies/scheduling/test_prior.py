"""A prior answers what it was fitted to, and with a number whatever it was read from."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import ProtocolError
from runvisor.policies.scheduling.prior import ArmModel, TrainedPrior, packed, unpacked

STUMP = ((0, 1.5, 1, 2), (-1, -2.0, -1, -1), (1, 0.5, 3, 4), (-1, 0.25, -1, -1), (-1, 0.75, -1, -1))
"""-2 up to 1.5; above, 0.75 with the part and 0.25 without."""


def boosted() -> TrainedPrior:
    model = ArmModel(-3.0, trees=(STUMP,), least=-8.0, most=0.0, runs=40)
    straight = ArmModel(-5.0, (0.5,), {"numpy": 1.0}, least=-6.0, most=-3.0)
    return TrainedPrior({"python/native": model, "python/jit": straight}, features=1, columns=["numpy"])


@pytest.mark.parametrize(
    ("family", "feature", "expected"),
    [("python:xs", 1.5, -5.0), ("python:xs", 2.0, -2.75), ("python:xs:math+numpy", 2.0, -2.25)],
)
def test_trees_look_at_features_and_at_words_of_the_family(family: str, feature: float, expected: float) -> None:
    assert boosted().log_mean_s("python/native", family, (feature,)) == expected


def test_a_line_is_held_within_what_was_seen() -> None:
    prior = boosted()
    assert prior.log_mean_s("python/jit", "python:s:numpy", (1.0,)) == -3.5
    assert prior.log_mean_s("python/jit", "python:s", (1e300,)) == -3.0
    assert prior.log_mean_s("python/jit", "python:s", (-1e300,)) == -6.0


def test_what_it_does_not_know_it_does_not_answer() -> None:
    prior = boosted()
    assert prior.log_mean_s("v8/isolate", "javascript:s", (1.0,)) is None
    assert prior.log_mean_s("python/native", "python:s", (1.0, 2.0)) is None, "features of another version"


def test_it_travels() -> None:
    wire = boosted().to_wire()
    assert TrainedPrior.from_wire(wire).to_wire() == wire


def _changed(path: list[Any], value: Any) -> dict[str, Any]:
    wire = copy.deepcopy(boosted().to_wire())
    place: Any = wire
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return wire


MODEL = ["arms", "python/native"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], 2),
        (["features"], True),
        (["features"], 65),
        (["columns"], ["x"] * 257),
        (["columns"], [""]),
        (["trained_until"], math.nan),
        (["arms"], {str(n): {} for n in range(65)}),
        ([*MODEL, "intercept"], math.inf),
        ([*MODEL, "intercept"], 10**400),
        ([*MODEL, "weights"], [1.0, 2.0]),
        ([*MODEL, "parts"], {"": 1.0}),
        ([*MODEL, "least"], 1.0),
        ([*MODEL, "most"], 1e6),
        ([*MODEL, "runs"], 1.5),
        ([*MODEL, "trees"], [[]]),
        ([*MODEL, "trees"], [[[0, 0.0, 0, 0]]]),
        ([*MODEL, "trees"], [[[0, 0.0, 1, 1], [0, 0.0, 0, 0]]]),
        ([*MODEL, "trees"], [[[9, 0.0, 1, 1], [-1, 0.0, -1, -1]]]),
        ([*MODEL, "trees"], [[[-1, math.nan, -1, -1]]]),
        ([*MODEL, "trees"], [[[-1, 0.0, -1, -1]]] * 65),
        ([*MODEL, "trees"], 7),
    ],
)
def test_what_describes_no_prior_is_refused(path: list[Any], value: Any) -> None:
    with pytest.raises(ProtocolError):
        TrainedPrior.from_wire(_changed(path, value))


@given(st.binary(max_size=60), st.integers(1, 400))
def test_bytes_that_are_no_prior_are_refused(junk: bytes, missing: int) -> None:
    for data in (junk, packed(boosted())[:-missing]):
        with pytest.raises(ProtocolError):
            unpacked(data)


def test_the_same_bytes_are_the_same_prior() -> None:
    assert unpacked(packed(boosted())) is unpacked(packed(boosted()))


_numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(st.tuples(st.integers(-1, 1), _numbers, st.integers(-1, 6), st.integers(-1, 6)), min_size=1, max_size=6),
    _numbers,
    _numbers,
    _numbers,
)
def test_whatever_is_read_answers_with_a_number_in_bounded_time(
    tree: list[Any], intercept: float, weight: float, feature: float
) -> None:
    wire = _changed([*MODEL, "trees"], [tree])
    wire["arms"]["python/native"] |= {"intercept": intercept, "weights": [weight]}
    try:
        prior = TrainedPrior.from_wire(wire)
    except ProtocolError:
        return
    answer = prior.log_mean_s("python/native", "python:s:numpy", (feature,))
    assert answer is not None
    assert -8.0 <= answer <= 0.0
