"""Errors: what every class promises."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies import errors
from runvisor.policies.errors import ERRORS, ProtocolError, RunvisorError
from runvisor.policies.values import pack, unpack

ALL = sorted(ERRORS.values(), key=lambda cls: cls.__name__)


def test_the_table_holds_every_class_of_the_module() -> None:
    written = {
        name
        for name, item in vars(errors).items()
        if isinstance(item, type) and issubclass(item, RunvisorError) and item.__module__ == errors.__name__
    }
    assert written == set(ERRORS)


@pytest.mark.parametrize("cls", ALL)
def test_every_class_survives_pickle_as_a_ray_call_needs(cls: type[RunvisorError]) -> None:
    error = cls("what", "where", "remedy", {"n": 1})
    error.add_note("a note")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is cls
    assert (back.what, back.where, back.remedy, back.details) == ("what", "where", "remedy", {"n": 1})
    assert back.__notes__ == ["a note"]


@pytest.mark.parametrize("cls", ALL)
def test_every_class_survives_the_wire(cls: type[RunvisorError]) -> None:
    error = cls("what", "where", "remedy", {"traceback": "…", "n": [1, 2]})
    back = RunvisorError.from_wire(unpack(pack(error.to_wire())))
    assert type(back) is cls
    assert back.args == error.args


@pytest.mark.parametrize("cls", ALL)
def test_every_class_says_whether_to_retry_whether_the_worker_lives_and_how_to_exit(cls: type[RunvisorError]) -> None:
    assert isinstance(cls.retryable, bool)
    assert isinstance(cls.worker_survives, bool)
    assert 1 <= cls.exit_status <= 5
    assert cls.__doc__


def test_the_guests_own_fault_never_costs_the_worker() -> None:
    for cls in ALL:
        if issubclass(cls, errors.GuestError | errors.LimitExceeded | errors.PolicyError | errors.ConfigError):
            assert cls.worker_survives, cls
            assert not cls.retryable, cls


def test_the_text_is_one_sentence_with_place_and_remedy() -> None:
    assert str(RunvisorError("it broke")) == "it broke"
    assert str(RunvisorError("it broke", "", "mend it")) == "it broke; mend it"
    assert str(RunvisorError("it broke", "here", "mend it")) == "it broke (at here); mend it"


def test_details_are_a_copy() -> None:
    details = {"n": 1}
    error = RunvisorError("x", "", "", details)
    details["n"] = 2
    assert error.details == {"n": 1}


plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(["type", "args", *ERRORS]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["type", "args", "x"]), inner),
    max_leaves=12,
)


@given(plain)
def test_hostile_wire_data_becomes_an_error_object_and_raises_nothing(data: Any) -> None:
    assert isinstance(RunvisorError.from_wire(data), RunvisorError)


def test_an_unknown_type_becomes_a_protocol_error() -> None:
    for name in ("SystemExit", "Exception", "object", "", None):
        assert type(RunvisorError.from_wire({"type": name, "args": ["", "", "", {}]})) is ProtocolError
