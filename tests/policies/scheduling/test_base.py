"""What counts as an outcome, and its wire form."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.runtime import Load as PoolLoad
from runvisor.policies.errors import (
    ERRORS,
    CapacityError,
    ConfigError,
    GuestException,
    LimitExceeded,
    PolicyError,
    ProtocolError,
    RunvisorError,
    TimeLimitExceeded,
    UnserializableValue,
    WorkerError,
)
from runvisor.policies.scheduling.base import Ending, Load, Outcome
from runvisor.policies.values import pack, unpack
from tests.policies.scheduling.helpers import outcome

SPENT: dict[str, Any] = {"service_s": 0.1, "wait_s": 0.2, "timeout_s": 5.0, "at": 7.0}


def ending_of(error: RunvisorError | None) -> Ending | None:
    learned = Outcome.of("a/b", "f", error, **SPENT)
    return learned.ending if learned else None


def test_a_value_and_the_guests_own_exception_are_latency_samples() -> None:
    assert ending_of(None) is Ending.RAN
    assert ending_of(GuestException("boom")) is Ending.RAN
    assert ending_of(UnserializableValue("set")) is Ending.RAN


def test_a_time_limit_is_censored_and_our_own_failure_is_a_failure() -> None:
    assert ending_of(TimeLimitExceeded("late")) is Ending.TIMED_OUT
    for cls in ERRORS.values():
        if issubclass(cls, WorkerError):
            assert ending_of(cls("x")) is Ending.FAILED


def test_what_was_refused_or_ended_early_teaches_nothing() -> None:
    for cls in ERRORS.values():
        refused = issubclass(cls, PolicyError | ConfigError | CapacityError)
        cut_short = issubclass(cls, LimitExceeded) and cls is not TimeLimitExceeded
        if refused or cut_short or cls.__name__ in ("GuestCrashed", "GuestSyntaxError"):
            assert ending_of(cls("x")) is None, cls


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=100)
seconds = st.floats(0, 1e9)


@given(
    names,
    names,
    st.sampled_from(Ending),
    seconds,
    seconds,
    seconds,
    st.floats(0, 1e11),
    st.booleans(),
    st.lists(seconds),
)
def test_an_outcome_survives_the_wire(
    arm: str, family: str, how: Ending, service_s: float, wait_s: float, timeout_s: float, at: float, cold: bool, x: Any
) -> None:
    learned = Outcome(arm, family, how, service_s, wait_s, timeout_s, at, cold, tuple(x[:64]))
    assert Outcome.from_wire(unpack(pack(learned.to_wire()))) == learned


def test_an_outcome_is_compact() -> None:
    assert len(pack(outcome(1).to_wire())) < 80


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        *((0, name) for name in ("", 5, "x" * 101)),
        *((1, name) for name in ("", None)),
        *((2, ending) for ending in (9, "RAN", None)),
        *((3, seconds) for seconds in (-1, float("nan"), "1", True)),
        *((4, seconds) for seconds in (-1, float("inf"))),
        *((5, seconds) for seconds in (None, 1e10)),
        *((6, at) for at in (float("nan"), "now")),
        *((8, features) for features in (5, ["x"], [0.0] * 65)),
    ],
)
def test_a_damaged_outcome_is_refused(place: int, wrong: Any) -> None:
    wire = outcome(0).to_wire()
    wire[place] = wrong
    with pytest.raises(ProtocolError):
        Outcome.from_wire(wire)


@given(
    st.none() | st.integers() | st.text() | st.lists(st.none() | st.integers() | st.text(), max_size=10) | st.just({})
)
def test_hostile_data_is_no_outcome(data: Any) -> None:
    with pytest.raises(ProtocolError):
        Outcome.from_wire(data)


def test_the_pools_own_load_is_a_load() -> None:
    load: Load = PoolLoad(idle=1, busy=2, waiting=3)
    assert (load.idle, load.busy, load.waiting) == (1, 2, 3)
